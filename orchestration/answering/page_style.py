"""The style of an answer's page: light and dark, readable without a script and when printed."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1d21; --soft: #5d626c; --paper: #ffffff; --card: #f5f6f8;
  --line: #dcdfe5; --link: #0a58b5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ee; --soft: #a0a6b2; --paper: #15171b; --card: #1e2127;
  --line: #343943; --link: #8ab8ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.05rem; margin: 2.4rem 0 .8rem; }
p { margin: .4rem 0; }
h1, h2, p, td, pre, summary, figcaption { overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .9rem; }
.answer { margin: 1.4rem 0 0; padding: .9rem 1.1rem; background: var(--card); border: 1px solid var(--line);
  border-left: 4px solid var(--link); border-radius: 6px; font-size: 1.25rem; white-space: pre-wrap; }
.answer .soft { display: block; font-size: .8rem; }
.frames { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 6px; overflow: hidden;
  scroll-margin-top: 1rem; }
figure:target { outline: 3px solid var(--link); }
figure img { display: block; width: 100%; }
figcaption { padding: .55rem .75rem .7rem; font-size: .9rem; }
figcaption div { margin-top: .2rem; }
pre { margin: 0; padding: .9rem 1.1rem; background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  font: .92rem/1.75 ui-monospace, "DejaVu Sans Mono", Menlo, monospace; white-space: pre-wrap; }
a { color: var(--link); }
.claim { color: inherit; text-decoration: none; border-bottom: 2px solid var(--colour); padding-bottom: 1px; }
a.claim:hover, a.claim:focus { background: var(--line); }
.badge { display: inline-block; min-width: 1.4em; padding: 0 .3em; border-radius: 4px; background: var(--colour);
  color: #fff; font: 600 .78rem/1.5 system-ui, "DejaVu Sans", sans-serif; text-align: center; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: .82rem; }
th, td { padding: .45rem .8rem .45rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.fault { color: var(--soft); font-style: italic; }
.won td { font-weight: 600; }
meter { width: 8rem; height: .8rem; vertical-align: middle; }
details pre { margin-top: .4rem; font-weight: 400; }
summary { cursor: pointer; color: var(--link); }
footer { margin-top: 3rem; }
@media print { .wide { overflow: visible; } details > * { display: block; } }
"""
