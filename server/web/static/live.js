// The charts of a cluster, the recovery of one whose leader was killed, and the log
// of a member. All text from the server is set as text.
"use strict";

const reduced = matchMedia("(prefers-reduced-motion: reduce)");

// ---- Units

function humanBytes(n) {
  if (n == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1023.95 && i < units.length - 1) { n /= 1024; i++; }
  return (i === 0 || n >= 100 || Number.isInteger(n) ? Math.round(n) : n.toFixed(1)) + " " + units[i];
}
function humanCount(n) {
  if (n == null) return "–";
  if (n >= 1e6) return (n / 1e6).toFixed(1) + " M";
  if (n >= 1e4) return (n / 1e3).toFixed(1) + " k";
  return n >= 100 || Number.isInteger(n) ? String(Math.round(n)) : n.toFixed(1);
}
function humanMillis(n) {
  if (n == null) return "–";
  return (n >= 100 ? Math.round(n) : n.toFixed(1)) + " ms";
}
const units = { bytes: humanBytes, ms: humanMillis, "/s": (n) => humanCount(n) + " /s" };

// All times are UTC, as those that the server writes and those in logs.
const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);

// ---- Charts: what this window has seen of the cluster, and no more

const keep = 300;
// A pause in the looking that is longer is a gap in the lines, in seconds.
const longestStep = 15;
const names = ["at", "writes", "db", "inuse", "latency"];
const series = Object.fromEntries(names.map((name) => [name, []]));
const charts = {};
let lastSample;

// What was seen on an earlier visit of this window is shown again. A browser may
// forbid to keep anything; then each visit begins anew.
const kept = "charts:" + location.pathname;
function remember() {
  try { sessionStorage.setItem(kept, JSON.stringify({ series, lastSample })); } catch { /* see above */ }
}
function recall() {
  try {
    const before = JSON.parse(sessionStorage.getItem(kept));
    const fits = names.every((name) => Array.isArray(before?.series[name]) && before.series[name].length === before.series.at.length);
    if (!fits || !(Date.now() / 1000 - before.lastSample.at < 600)) return;
    Object.assign(series, before.series);
    lastSample = before.lastSample;
  } catch { /* see above */ }
}

function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
function alpha(rgb, a) {
  return rgb.replace(/^rgb\(([^)]+)\)$/, `rgba($1, ${a})`);
}
function makeChart(name, lines) {
  const box = document.getElementById("chart-" + name);
  if (!box || typeof uPlot === "undefined") return;
  const human = units[box.dataset.unit];
  const accent = colour("--accent"), dim = colour("--dim"), line = colour("--line");
  const font = "11px " + getComputedStyle(document.body).fontFamily;
  const axis = { stroke: dim, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
  const round = box.dataset.unit === "bytes" ? { space: 28, incrs: Array.from({ length: 50 }, (_, i) => 2 ** i) } : {};
  // Few moments are seen better as points than as a line.
  const points = { show: (u, i) => u.data[i].filter((v) => v != null).length < 8, size: 5 };
  charts[name]?.destroy();
  charts[name] = new uPlot({
    width: box.clientWidth, height: 128, padding: [8, 20, 0, 0], cursor: { y: false, points: { size: 6 }, drag: { x: false } }, legend: { show: false },
    // It fills from the left, and moves on once it is full.
    scales: { x: { time: true, range: () => { const lo = series.at[0] ?? Date.now() / 1000; return [lo, Math.max(series.at.at(-1) ?? lo, lo + 30)]; } }, y: { range: (u, lo, hi) => [0, hi > 0 ? hi * 1.2 : 1] } },
    axes: [
      // A label at the left edge would run into those of the other axis.
      { ...axis, size: 24, space: 72, grid: { show: false }, values: (u, at) => at.map((t) => (u.valToPos(t, "x") < 26 ? "" : clock(t))) },
      { ...axis, size: 62, space: 36, ...round, values: (u, at) => at.map((v) => human(v)) },
    ],
    series: [{}, ...lines.map((_, i) => i === 0
      ? { stroke: accent, width: 1.75, fill: alpha(accent, 0.1), points: { ...points, fill: accent } }
      : { stroke: dim, width: 1.25, dash: [4, 3], points: { ...points, fill: dim } })],
  }, [series.at, ...lines.map((l) => series[l])], box);
  charts[name].lines = lines;
  charts[name].human = human;
}
function makeCharts() {
  makeChart("writes", ["writes"]);
  makeChart("db", ["db", "inuse"]);
  makeChart("latency", ["latency"]);
}
function takeSample() {
  const d = document.getElementById("sample")?.dataset;
  if (!d || !(Number(d.at) > 0)) return;
  const now = { at: Number(d.at) / 1000, revision: Number(d.revision), db: Number(d.db), inuse: Number(d.inuse), latency: Number(d.latency) };
  if (lastSample && now.at <= lastSample.at) return;
  const known = now.revision > 0;
  const before = lastSample;
  lastSample = now;
  const gap = before && now.at - before.at > longestStep;
  if (gap) {
    series.at.push(before.at + 1);
    for (const name of names.slice(1)) series[name].push(null);
  }
  series.at.push(now.at);
  series.writes.push(known && !gap && before?.revision > 0 && now.revision >= before.revision ? (now.revision - before.revision) / (now.at - before.at) : null);
  series.db.push(known ? now.db : null);
  series.inuse.push(known ? now.inuse : null);
  series.latency.push(known ? now.latency : null);
  for (const list of Object.values(series)) while (list.length > keep) list.shift();
  remember();
  showSamples();
}
function showSamples() {
  if (series.at.length === 0) return;
  const since = document.getElementById("charts-since");
  since.textContent = since.dataset.since.replace("{0}", clock(series.at[0]));
  for (const [name, chart] of Object.entries(charts)) {
    chart.setData([series.at, ...chart.lines.map((l) => series[l])]);
    const last = series[chart.lines[0]].at(-1);
    document.getElementById(`chart-${name}-now`).textContent = last == null ? "–" : chart.human(last);
  }
}
if (document.querySelector(".charts")) {
  recall();
  makeCharts();
  takeSample();
  showSamples();
  document.body.addEventListener("htmx:afterSwap", (e) => { if (e.detail.target.id === "now") takeSample(); });
  addEventListener("resize", () => {
    for (const [name, chart] of Object.entries(charts)) chart.setSize({ width: document.getElementById("chart-" + name).clientWidth, height: 128 });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", makeCharts);
}

// ---- Recovery

const svgNS = "http://www.w3.org/2000/svg";
function svg(tag, attributes, text) {
  const el = document.createElementNS(svgNS, tag);
  for (const [k, v] of Object.entries(attributes)) el.setAttribute(k, v);
  if (text !== undefined) el.textContent = text;
  return el;
}
const steps = ["killed", "lost", "elected", "serving", "back", "healthy"];

class Recovery {
  constructor(box) {
    this.box = box;
    this.words = box.dataset;
    this.looks = [];
    this.marks = new Map();
    this.began = performance.now();
    this.last = 0;
    box.hidden = false;
    document.getElementById("recovery-title").textContent = this.words.title;
    box.classList.remove("done");
    box.setAttribute("aria-busy", "true");
    this.list();
    box.scrollIntoView({ behavior: reduced.matches ? "auto" : "smooth", block: "start" });
    this.say(this.words.waiting);
    // The clock stops when all is healthy, though looks go on for a moment.
    this.clock = setInterval(() => { this.last = this.healthy() ?? performance.now() - this.began; this.draw(); }, 50);
  }
  healthy() { return this.marks.get("healthy")?.at; }
  say(text) { document.getElementById("recovery-summary").textContent = text; }
  list() {
    const list = document.getElementById("recovery-marks");
    list.replaceChildren(...steps.map((step) => {
      const item = document.createElement("li");
      item.dataset.step = step;
      const at = document.createElement("span");
      at.className = "at";
      at.textContent = "–";
      const who = document.createElement("span");
      who.className = "who";
      item.append(at, this.words[step], who);
      return item;
    }));
  }
  take(look) {
    if (look.members) this.looks.push(look);
    for (const mark of look.marks || []) {
      this.marks.set(mark.step, mark);
      const item = document.querySelector(`#recovery-marks [data-step="${mark.step}"]`);
      item.classList.add("reached");
      item.querySelector(".at").textContent = time(mark.at);
      item.querySelector(".who").textContent = [mark.member, mark.term ? `${this.words.term} ${mark.term}` : ""].filter(Boolean).join(" · ");
      htmx.trigger(document.body, "q:changed");
    }
    if (look.failed) this.end(this.words.failed + " " + look.failed);
    if (look.done) {
      const at = (step) => time(this.marks.get(step)?.at ?? 0);
      this.end(this.words.summary.replace("{0}", at("serving")).replace("{1}", at("healthy")));
    }
  }
  end(text) {
    if (this.over) return;
    this.over = true;
    clearInterval(this.clock);
    this.last = this.healthy() ?? this.looks.at(-1)?.at ?? 0;
    document.getElementById("recovery-title").textContent = this.words.over;
    this.box.classList.add("done");
    this.box.removeAttribute("aria-busy");
    this.say(text);
    this.draw();
  }
  draw() {
    document.getElementById("recovery-clock").textContent = time(this.last);
    const names = this.looks[0]?.members.map((m) => m.name) ?? [];
    const width = Math.max(320, this.box.clientWidth - 64), narrow = width < 560;
    const left = narrow ? 8 : 150, right = 24, row = narrow ? 44 : 32, top = 28;
    const height = top + names.length * row + 28;
    // What came after the end is shown as far as it makes the end be seen.
    const span = Math.max(1000, this.last * 1.06);
    const x = (ms) => left + (Math.min(ms, span) / span) * (width - left - right);
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": this.words.lanes });
    names.forEach((name, i) => {
      const y = top + i * row + row / 2 + (narrow ? 6 : 0);
      root.append(svg("text", narrow ? { class: "lane-name", x: left, y: y - 12 } : { class: "lane-name", x: 0, y: y + 4 }, name));
      for (const part of this.parts(name)) {
        if (part.from > span) continue;
        root.append(svg("line", { class: "seg-" + part.state, x1: x(part.from), x2: Math.max(x(part.to), x(part.from) + 1), y1: y, y2: y }));
      }
    });
    this.ruler(root, x, span, top + names.length * row + 6);
    // Steps that are close together are moved apart, for their numbers to be read.
    const marks = [...this.marks.values()].sort((a, b) => a.at - b.at || steps.indexOf(a.step) - steps.indexOf(b.step));
    const places = [];
    marks.forEach((mark, i) => places.push(Math.max(x(mark.at), (places[i - 1] ?? -100) + 17)));
    for (let i = places.length - 1, most = width - 9; i >= 0; i--, most -= 17) places[i] = Math.min(places[i], most);
    for (const [i, mark] of marks.entries()) {
      const at = x(mark.at), drawn = places[i];
      root.append(svg("path", { class: "mark-line", fill: "none", d: `M${drawn} 19L${at} ${top - 2}V${top + names.length * row}` }));
      root.append(svg("circle", { class: "mark-dot", cx: drawn, cy: 10, r: 8 }));
      root.append(svg("text", { class: "mark-number", x: drawn, y: 13.5 }, String(steps.indexOf(mark.step) + 1)));
    }
    document.getElementById("recovery-lanes").replaceChildren(root);
  }
  parts(name) {
    const parts = [];
    this.looks.forEach((look, i) => {
      const state = look.members.find((m) => m.name === name)?.state ?? "down";
      const from = look.at, to = this.looks[i + 1]?.at ?? Math.max(look.at, this.last);
      const open = parts.at(-1);
      if (open?.state === state) open.to = to;
      else parts.push({ state, from, to });
    });
    return parts;
  }
  ruler(root, x, span, y) {
    const step = [100, 200, 500, 1000, 2000, 5000, 10000, 20000].find((s) => span / s <= 8) ?? 60000;
    for (let t = 0; t <= span; t += step) {
      root.append(svg("text", { class: "tick-text", x: x(t), y: y + 14 }, time(t)));
    }
  }
}
// Looks are taken every 100 ms: more digits would say what nobody measured.
function time(ms) { return (ms / 1000).toFixed(1) + " s"; }

let recovery;
addEventListener("resize", () => recovery?.draw());
async function kill(address) {
  recovery = new Recovery(document.getElementById("recovery"));
  try {
    const answer = await fetch(address, { method: "POST", headers: { "HX-Request": "true" } });
    if (!answer.ok || !answer.body) {
      recovery.end(recovery.words.failed + " " + plain(await answer.text()));
      return;
    }
    recovery.began = performance.now();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      text += value;
      const lines = text.split("\n");
      text = lines.pop();
      for (const line of lines) if (line) recovery.take(JSON.parse(line));
    }
    recovery.end(recovery.words.failed);
  } catch (e) {
    recovery.end(recovery.words.failed + " " + e.message);
  }
}
function plain(html) { return new DOMParser().parseFromString(html, "text/html").body.textContent.trim(); }
document.addEventListener("click", (e) => {
  const button = e.target.closest("#break");
  if (!button) return;
  const dialog = document.getElementById(button.dataset.ask);
  dialog.returnValue = "";
  dialog.addEventListener("close", () => { if (dialog.returnValue === "kill") kill(button.dataset.kill); }, { once: true });
  dialog.showModal();
});

// ---- Log

const log = document.getElementById("log");
if (log) {
  const lines = document.getElementById("log-lines"), filter = document.getElementById("log-filter");
  const level = document.getElementById("log-level"), source = document.getElementById("log-source"), pause = document.getElementById("log-pause");
  const rank = { debug: 0, info: 1, warn: 2, warning: 2, error: 3, dpanic: 4, panic: 4, fatal: 4 };
  const most = 2000;
  let feed, waiting = [], paused = false, retryLog;

  const wanted = (item) => (rank[item.dataset.level] ?? 1) >= rank[level.value] && item.textContent.toLowerCase().includes(filter.value.toLowerCase());
  const span = (cls, text) => { const s = document.createElement("span"); s.className = cls; s.textContent = text; return s; };
  function show(batch) {
    lines.querySelector(".logempty")?.remove();
    const end = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
    for (const line of batch) {
      const item = document.createElement("div");
      item.dataset.level = line.level || "";
      item.className = "logline " + (/^[a-z]+$/.test(line.level || "") ? line.level : "");
      const ts = span("ts", (line.time || "").slice(11, 19));
      ts.title = line.time || "";
      const text = span("tx", line.message);
      if (line.more) text.append(" ", span("mo", line.more));
      item.append(ts, span("lv", line.level || ""), text);
      item.hidden = !wanted(item);
      lines.append(item);
    }
    while (lines.childElementCount > most) lines.firstElementChild.remove();
    if (end) lines.scrollTop = lines.scrollHeight;
  }
  function note(text) { const box = document.createElement("div"); box.className = "logempty"; box.textContent = text; lines.replaceChildren(box); }
  function open() {
    clearTimeout(retryLog);
    feed?.close();
    note(lines.dataset.empty);
    feed = new EventSource(log.dataset.log + "?source=" + encodeURIComponent(source.value));
    feed.addEventListener("lines", (e) => { const batch = JSON.parse(e.data); if (paused) waiting.push(...batch); else show(batch); });
    feed.addEventListener("failed", (e) => { note(JSON.parse(e.data)); feed.close(); feed = undefined; retryLog = setTimeout(open, 5000); });
    // The stream begins with its tail again, so what stands here is replaced.
    feed.addEventListener("error", () => { feed?.close(); feed = undefined; clearTimeout(retryLog); retryLog = setTimeout(open, 3000); });
  }
  const narrow = () => { for (const item of lines.children) if (item.classList.contains("logline")) item.hidden = !wanted(item); lines.scrollTop = lines.scrollHeight; };
  filter.addEventListener("input", narrow);
  level.addEventListener("change", narrow);
  source.addEventListener("change", open);
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.querySelector("span").textContent = paused ? pause.dataset.resume : pause.dataset.pause;
    if (!paused) { show(waiting); waiting = []; }
  });
  document.addEventListener("visibilitychange", () => { if (document.hidden) { clearTimeout(retryLog); feed?.close(); feed = undefined; } else if (!feed) open(); });
  open();
}
