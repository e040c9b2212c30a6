"""The Jinja2 template of the page of `ser data show`, and what its style adds to that of an answer's page."""

OWN_STYLE = """
h2 { font-size: 1.25rem; margin: 0 0 .6rem; scroll-margin-top: 1rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .6rem; }
h3 .soft { font-weight: 400; }
section { margin-top: 3rem; padding-top: 1.6rem; border-top: 1px solid var(--line); }
nav ol { list-style: none; margin: 1rem 0 0; padding: 0; }
nav li { padding: .35rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .3rem 1.2rem; margin: 0; }
dt { color: var(--soft); font-size: .9rem; }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.frames { grid-template-columns: repeat(auto-fill, minmax(min(12rem, 42vw), 1fr)); gap: .7rem; }
figure img { height: auto; }
.sharp { image-rendering: pixelated; }
.key { border-color: var(--link); box-shadow: 0 0 0 1px var(--link); }
figcaption { padding: .4rem .6rem .5rem; overflow-wrap: anywhere; font-size: .85rem; }
.problems { margin: 0 0 1rem; padding: .6rem .9rem .6rem 2rem; border: 1px solid var(--line);
  border-left: 4px solid var(--warn); border-radius: 6px; background: var(--card); overflow-wrap: anywhere; }
.count { color: var(--warn); font-size: .85rem; font-weight: 600; white-space: nowrap; }
:root { --warn: #a84300; }
@media (prefers-color-scheme: dark) { :root { --warn: #ff9d5c; } }
pre { line-height: 1.6; }
.special, .visual { border-radius: 4px; padding: 0 .2em; background: var(--line); }
.special { color: var(--soft); }
.special::after { content: "\\200b"; } /* a line may break here, rather than in the next word */
.visual { color: var(--link); white-space: nowrap; }
details { margin-top: .8rem; }
@media (max-width: 40rem) {
  main { padding: 1.5rem 1rem 3rem; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: .6rem; }
}
"""

TEMPLATE = """\
{% macro fact(name, value) %}
  <dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endmacro %}
{% macro figure(number, frame, info) %}
  {% set alt = "Frame " ~ number ~ " at " ~ frame.time|seconds %}
  {% set image = frame.with_boxes or frame.image %}
  {% set sharp = image == frame.image and info.size|min < SMALL %}
  <figure{% if frame.key_frames %} class="key"{% endif %}>
  <a href="{{ image }}"><img src="{{ image }}" alt="{{ alt }}" width="{{ info.size[0] }}" height="{{ info.size[1] }}"
    {% if sharp %}class="sharp" {% endif %}loading="lazy"></a>
  <figcaption>
    <div><strong>{{ frame.time|seconds }}</strong> <span class="soft">frame {{ number }}</span></div>
    {% for key in frame.key_frames %}
    <div>labelled key frame <span class="soft">{{ key.idx }}, {{ key.time|seconds }}</span></div>
    {% endfor %}
    {% for box in frame.boxes %}
    <div><span class="badge" {{ box.number|css_colour|safe }}>{{ box.number }}</span> {{ box.phrase }}
      <span class="soft">{{ box.box|box }}</span></div>
    {% endfor %}
    {% if frame.with_boxes %}
    <div><a href="{{ frame.image }}">without boxes</a></div>
    {% endif %}
  </figcaption>
  </figure>
{% endmacro %}
{% macro prompt(seen) %}
<h3>Prompt <span class="soft">{{ seen.tokens|thousands }} tokens, {{ seen.visual_tokens|thousands }} of them
  of {% if seen.native_steps %}a native video of {{ seen.native_steps }}
  step{{ "s" if seen.native_steps != 1 }}{% else %}frames{% endif %}</span></h3>
{# HTML drops the first newline of a pre. #}
<pre>
{% for piece in seen.prompt %}
{%- if piece.kind == "text" %}{{ piece.text }}
{%- else %}<span class="{{ piece.kind }}">{{ piece.text }}
{%- if piece.tokens > 1 %} × {{ piece.tokens|thousands }}{% endif %}</span>
{%- endif %}
{% endfor %}
</pre>
{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{{ generator|safe }}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ source.file }}</title>
<style>{{ style|safe }}</style>
</head>
<body>
<main>
<p class="soft">What the policy sees</p>
<h1>{{ source.file }}</h1>
<p class="soft">{{ source.chosen }} · prompts of {{ source.model }}</p>
<details><summary>settings of frames and prompts</summary><pre>
{{ source.settings }}</pre></details>
<nav><ol>
{% for shown in samples %}
<li><a href="#sample-{{ shown.place }}">{{ shown.sample.id }}</a> <span class="soft">{{ shown.sample.task }}</span>
  {% if shown.problems %}
  <span class="count">{{ shown.problems|length }} problem{{ "s" if shown.problems|length > 1 }}</span>
  {% endif %}
  <br>{{ shown.sample.question|truncate(160) }}</li>
{% endfor %}
</ol></nav>
{% for shown in samples %}
{% set sample, seen = shown.sample, shown.seen %}
<section>
<h2 id="sample-{{ shown.place }}">{{ sample.id }} <span class="soft">sample {{ shown.place }}</span></h2>
{% if shown.problems %}
<ul class="problems">
{% for problem in shown.problems %}
<li>{{ problem }}</li>
{% endfor %}
</ul>
{% endif %}
<dl>
{{ fact("question", sample.asked) }}
{{ fact("answer", sample.answer or "none") }}
{% if sample.spans %}
{{ fact("true spans", sample.spans|spans) }}
{% endif %}
{{ fact("task", sample.task) }}
{{ fact("source", sample.source) }}
{{ fact("media", sample.media_path) }}
{% if sample.part %}
{{ fact("part shown", [sample.part]|spans) }}
{% endif %}
{% if seen %}
{{ fact("file", seen.info|file) }}
{{ fact("shown", seen.info|frames) }}
{% if seen.not_shown %}
{{ fact("key frames not shown", seen.not_shown|key_frames) }}
{% endif %}
{% endif %}
</dl>
{% if sample.reasoning %}
<details><summary>completion to learn from</summary><pre>
{{ sample.reasoning }}</pre></details>
{% endif %}
{% if seen %}
<h3>Frames{% if seen.has_boxes %} <span class="soft">boxes are labels: the policy gets the frames without
  them</span>{% endif %}</h3>
<div class="frames">
{% for frame in seen.frames %}
{{ figure(loop.index, frame, seen.info) }}
{% endfor %}
</div>
{{ prompt(seen) }}
{% endif %}
</section>
{% endfor %}
<footer class="soft">Made by <code>ser data show</code>. This page loads only the images beside it and runs
nothing.</footer>
</main>
</body>
</html>
"""
