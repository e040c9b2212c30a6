"use strict";
// The evidence browser. All text enters the page as text nodes: nothing that a model wrote is ever read as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const place = document.getElementById("entries");
  if (!place) return;
  const SVG = "http://www.w3.org/2000/svg";
  const SMALL = 160; // pixels: smaller frames are shown as squares
  const GOOD = 0.5; // score from which a box has a solid outline
  const INITIAL = { run: "", kind: "", task: "", term: "reward", from: "", to: "", least: "", most: "", spread: "",
    apart: "", order: "step", sample: "" };
  let state = { ...INITIAL };

  const node = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
  const drawn = (tag, attributes = {}, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);
  function filled(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "colour") element.style.setProperty("--colour", value);
      else if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }
  const number = (value, digits = 2) => (value === null || value === undefined ? "–" : Number(value).toFixed(digits));
  const colour = (claim) => data.colours[(claim - 1) % data.colours.length];
  const badge = (claim) => node("span", { class: "badge", colour: colour(claim) }, String(claim));

  function valuesOf(entry, term) {
    return entry.completions.map((completion) => completion.terms[term]).filter((v) => v !== null && v !== undefined);
  }
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const spread = (values) => Math.max(...values) - Math.min(...values);
  // A held-out clip has one completion at each step: its spread is over the steps.
  const spreadOf = (entry, term) =>
    entry.kind === "training" ? spread(valuesOf(entry, term)) : term === "reward" ? entry.spread : 0;

  const ORDERS = {
    step: ["step", (a, b) => (a.kind < b.kind) - (a.kind > b.kind) || a.step - b.step || a.run - b.run],
    spread: ["largest spread of the term in the group", (a, b) => spreadOf(b, state.term) - spreadOf(a, state.term)],
    apart: ["referee and label differ most", (a, b) => (b.apart ?? -1) - (a.apart ?? -1)],
    high: ["highest mean of the term", (a, b) => mean(valuesOf(b, state.term)) - mean(valuesOf(a, state.term))],
    low: ["lowest mean of the term", (a, b) => mean(valuesOf(a, state.term)) - mean(valuesOf(b, state.term))],
  };

  function shown() {
    const atLeast = (bound, value) => bound === "" || (value !== null && value >= Number(bound));
    const atMost = (bound, value) => bound === "" || value <= Number(bound);
    const kept = data.entries.filter((entry) => {
      if (state.sample) return entry.sample === state.sample;
      const values = valuesOf(entry, state.term);
      return (
        (state.run === "" || entry.run === Number(state.run)) &&
        (state.kind === "" || entry.kind === state.kind) &&
        (state.task === "" || entry.task === state.task) &&
        atLeast(state.from, entry.step) && atMost(state.to, entry.step) &&
        values.length > 0 && atLeast(state.least, mean(values)) && atMost(state.most, mean(values)) &&
        atLeast(state.spread, spreadOf(entry, state.term)) && atLeast(state.apart, entry.apart)
      );
    });
    return kept.sort(state.sample ? ORDERS.step[1] : ORDERS[state.order][1]);
  }

  function distinct(of) {
    return [...new Set(data.entries.flatMap(of))].sort((a, b) => String(a).localeCompare(String(b)));
  }

  function choice(key, label, options) {
    const select = node("select", { name: key });
    for (const [value, text] of options) select.append(node("option", { value }, text));
    select.value = state[key];
    select.addEventListener("change", () => set({ [key]: select.value }));
    return node("label", {}, label, select);
  }

  function bound(key, label) {
    const input = node("input", { name: key, type: "number", step: "any", inputmode: "decimal" });
    input.value = state[key];
    input.addEventListener("input", () => set({ [key]: input.value }));
    return node("label", {}, label, input);
  }

  function filters() {
    const all = ["", "all"];
    const terms = distinct((entry) => entry.completions.flatMap((completion) => Object.keys(completion.terms)));
    const reset = node("button", { type: "button", class: "reset" }, "Reset");
    reset.addEventListener("click", () => { state = { ...INITIAL }; filters(); update(); });
    const form = document.getElementById("filters");
    form.replaceChildren(
      data.runs.length > 1 ? choice("run", "Run", [all, ...data.runs.map((run, n) => [String(n), run.name])]) : "",
      choice("kind", "Recorded in", [all, ...distinct((entry) => entry.kind).map((kind) => [kind, kind])]),
      choice("task", "Task", [all, ...distinct((entry) => entry.task).map((task) => [task, task])]),
      bound("from", "Step, from"), bound("to", "Step, to"),
      choice("term", "Reward term", terms.map((term) => [term, term])),
      bound("least", "Mean of the term, at least"), bound("most", "Mean of the term, at most"),
      bound("spread", "Spread of the term, at least"), bound("apart", "Referee and label apart, at least"),
      choice("order", "Order", Object.entries(ORDERS).map(([key, [text]]) => [key, text])), reset,
    );
    form.onsubmit = (event) => event.preventDefault();
  }

  function set(change) {
    state = { ...state, ...change };
    update();
  }

  function update() {
    const entries = shown();
    const status = document.getElementById("count");
    status.replaceChildren(`${entries.length} of ${data.entries.length} prompts shown`);
    if (state.sample) {
      const back = node("button", { type: "button" }, "Back to all prompts");
      back.addEventListener("click", () => set({ sample: "" }));
      status.replaceChildren(`Prompt ${state.sample}, ${entries.length} times. `, back);
    }
    place.className = state.sample ? "compare" : "";
    place.replaceChildren(...entries.map((entry, n) => article(entry, n === 0 || Boolean(state.sample))));
  }

  const stepName = (entry) =>
    entry.kind === "training" ? `step ${entry.step}`
      : entry.step === 0 ? "held-out, before training" : `held-out, after step ${entry.step}`;

  function article(entry, open) {
    const values = valuesOf(entry, state.term);
    const facts = [stepName(entry), entry.task];
    if (data.runs.length > 1) facts.unshift(data.runs[entry.run].name);
    if (values.length) facts.push(`${state.term} ${number(mean(values))}, spread ${number(spreadOf(entry, state.term))}`);
    if (entry.apart !== null) facts.push(`referee and label apart ${number(entry.apart)}`);
    const button = node("button", { type: "button", "aria-expanded": String(open) }, entry.question,
      node("span", { class: "soft" }, facts.join(" · ")));
    const body = node("div", { class: "body" });
    const element = node("article", { class: "entry" }, button, body);
    const toggle = (isOpen) => {
      button.setAttribute("aria-expanded", String(isOpen));
      body.hidden = !isOpen;
      if (isOpen && !body.hasChildNodes()) body.append(...content(entry));
    };
    button.addEventListener("click", () => toggle(body.hidden));
    toggle(open);
    return element;
  }

  function content(entry) {
    const same = data.entries.filter((other) => other.sample === entry.sample).length;
    const parts = [node("p", { class: "soft" }, `Sample ${entry.sample}. Reference answer: ${entry.answer}. `
      + `Chosen for: ${entry.why}.`)];
    if (same > 1 && !state.sample) {
      const compare = node("button", { type: "button" }, `Compare this prompt, which is on the page ${same} times`);
      compare.addEventListener("click", () => { set({ sample: entry.sample }); place.scrollIntoView(); });
      parts.push(node("p", {}, compare));
    }
    parts.push(entry.missing ? node("p", { class: "fault" }, `No frames: ${entry.missing}.`) : strip(entry));
    const many = entry.completions.length > 1;
    return [...parts, ...entry.completions.map((completion, n) => written(entry, completion, many ? n + 1 : 0))];
  }

  // The frames that the page holds of the clip, without claims.
  function strip(entry) {
    const indices = Object.keys(entry.frames).map(Number);
    const left = entry.times.length - indices.length;
    const figures = indices.map((index) =>
      node("figure", {}, picture(entry, index, []), node("figcaption", {}, `${number(entry.times[index], 1)} s`)));
    return node("div", {}, node("div", { class: "frames strip" }, ...figures),
      left ? node("p", { class: "soft" }, `${left} of the ${entry.times.length} frames shown are not on this page.`) : null);
  }

  function written(entry, completion, n) {
    const terms = Object.entries(completion.terms).map(([name, value]) => node("li", {}, `${name} ${number(value)}`));
    const versions = completion.versions.length ? `, drawn by weight version ${completion.versions.join(", ")}` : "";
    return node("section", { class: "completion" },
      node("h4", {}, (n ? `Completion ${n}` : "Completion") + versions),
      node("ul", { class: "terms" }, ...terms),
      node("pre", {}, ...completion.pieces.map(([text, claims]) => claims.length
        ? node("span", { class: "claim", colour: colour(claims[0]) }, ...claims.map(badge), text) : text)),
      completion.claims.length ? table(completion) : node("p", { class: "soft" }, "It holds no claim."),
      entry.missing ? null : cited(entry, completion));
  }

  function table(completion) {
    const heads = ["#", "object", "time", "box, pixels", "relevance", "box fits", "time penalty", "score", "IoU", "note"];
    const rows = completion.claims.map((claim, n) => node("tr", {},
      node("td", {}, badge(n + 1)), node("td", { class: "phrase" }, claim.phrase || "–"), node("td", { class: "tight" }, timeOf(claim)),
      node("td", { class: "tight" }, claim.box ? `[${claim.box.map((value) => number(value, 0)).join(", ")}]` : "–"),
      ...[claim.relevance, claim.localization, claim.temporal_penalty, claim.score, claim.iou].map((value) =>
        node("td", { class: "number" }, number(value))),
      node("td", { class: "fault" }, claim.flag || (claim.score === null ? "no verdict recorded" : ""))));
    const head = node("tr", {}, ...heads.map((text, n) =>
      node("th", { scope: "col", class: n > 3 && n < 9 ? "number" : null }, text)));
    return node("div", { class: "wide" }, node("table", {}, head, ...rows));
  }

  function timeOf(claim) {
    if (claim.time === null) return "–";
    return claim.until === null ? `${number(claim.time, 1)} s` : `${number(claim.time, 1)}–${number(claim.until, 1)} s`;
  }

  // The frames that the completion's claims name, with their boxes, and those that it cites by number.
  function cited(entry, completion) {
    const numbered = completion.claims.map((claim, n) => [n + 1, claim]);
    const named = completion.claims.map((claim) => claim.frame).filter((frame) => frame !== null);
    const indices = [...new Set([...named, ...completion.cited])].sort((a, b) => a - b);
    const figures = indices.map((index) => {
      const here = numbered.filter(([, claim]) => claim.frame === index);
      const lines = here.map(([n, claim]) => node("div", {}, badge(n), node("bdi", {}, claim.phrase),
        `: ${claim.score === null ? claim.flag || "no verdict" : `score ${number(claim.score)}`}`));
      if (completion.cited.includes(index)) lines.push(node("div", { class: "soft" }, "cited as a key frame"));
      const image = index in entry.frames ? picture(entry, index, here) : node("p", { class: "fault" }, "not on this page");
      const caption = node("figcaption", {}, node("strong", {}, `${number(entry.times[index], 1)} s`), ...lines);
      return node("figure", {}, image, caption);
    });
    return node("div", { class: "frames" }, ...figures);
  }

  function picture(entry, index, claims) {
    const [width, height] = entry.size;
    const image = drawn("image", { href: data.images[entry.frames[index]], width, height });
    const labels = (entry.labels[index] || []).flatMap((box) => labelled(box, Math.min(width, height)));
    const boxes = claims.filter(([, claim]) => claim.box).flatMap(([n, claim]) => outline(n, claim, entry.size));
    const title = drawn("title", {}, `Frame at ${number(entry.times[index], 1)} s`);
    return drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: Math.max(width, height) < SMALL ? "small" : null },
      title, image, ...labels, ...boxes);
  }

  function rectangle([x1, y1, x2, y2], attributes) {
    return drawn("rect", { x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1), fill: "none",
      "vector-effect": "non-scaling-stroke", ...attributes });
  }

  function mark(text, [x, y], size, fill) {
    return drawn("text", { x, y, fill, "font-size": size, "font-weight": 700, "text-anchor": "middle", stroke: "#fff",
      "stroke-width": size / 6, "paint-order": "stroke", "font-family": "sans-serif" }, text);
  }

  function labelled(box, side) {
    const size = side / 9;
    return [rectangle(box, { stroke: "#000", "stroke-width": 5 }), rectangle(box, { stroke: "#fff", "stroke-width": 3.4 }),
      rectangle(box, { stroke: "#000", "stroke-width": 1 }), mark("L", [(box[0] + box[2]) / 2, box[3] - size / 5], size, "#000")];
  }

  // The number is in one of the box's corners, in turn, so that those of like boxes do not cover each other.
  function outline(n, claim, [width, height]) {
    const size = Math.min(width, height) / 8;
    const dashes = claim.score === null ? "2 3" : claim.score < GOOD ? "7 4" : null;
    const [x1, y1, x2, y2] = claim.box;
    const corner = [n % 2 ? x1 + size / 2 : x2 - size / 2, (n - 1) % 4 < 2 ? y1 + size : y2 - size / 5];
    const inside = [Math.min(Math.max(corner[0], size / 2), width - size / 2), Math.min(Math.max(corner[1], size), height)];
    return [rectangle(claim.box, { stroke: "#fff", "stroke-width": 4.5 }),
      rectangle(claim.box, { stroke: colour(n), "stroke-width": 2.5, "stroke-dasharray": dashes }),
      mark(String(n), inside, size, colour(n))];
  }

  filters();
  update();
})();
