// What every page does: copying, keys, dialogs, the event stream, and saying calmly
// when the server does not answer. Pages work without it; they are then not live.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const words = () => document.body.dataset;

// Copy buttons.
let toastTimer;
function toast(text) {
  const box = $("#toast");
  box.textContent = text;
  box.classList.add("on");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => box.classList.remove("on"), 1600);
}
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without TLS a browser has no clipboard to offer but this.
    const area = document.createElement("textarea");
    area.value = text;
    ($("dialog[open]") || document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(words().copied);
}
document.addEventListener("click", (e) => {
  const button = e.target.closest("[data-copy]");
  if (button) {
    e.preventDefault();
    copy(button.dataset.copy);
  }
});

// Dialogs: one for what the server sends, others that stand in the page.
document.addEventListener("click", (e) => {
  const opener = e.target.closest("[data-dialog]");
  if (opener) document.getElementById(opener.dataset.dialog).showModal();
  if (e.target.closest("[data-close]")) e.target.closest("dialog")?.close();
  if (e.target.matches("dialog")) e.target.close();
});
document.body.addEventListener("q:done", () => $("#dialog").close());
function openDialog() {
  const dialog = $("#dialog");
  if (!dialog.open) dialog.showModal();
  const heading = $("#dialog-body h2");
  if (heading) dialog.setAttribute("aria-label", heading.textContent);
  ($("input:not([type=hidden])", dialog) || $("[data-close]", dialog))?.focus();
  mustMatch(dialog);
}
// A button that needs a name typed stays off until it stands there.
function mustMatch(root) {
  const input = $("[data-must]", root);
  if (!input) return;
  const button = input.form.querySelector("button:not([type=button])");
  const check = () => { button.disabled = input.value !== input.dataset.must; };
  input.addEventListener("input", check);
  check();
}

// Keys. None acts while something is being typed.
let going = 0;
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, textarea, select, dialog[open]")) return;
  const places = { f: "/", h: "/hosts", t: "/tasks", e: "/activity" };
  if (e.timeStamp - going < 1200 && places[e.key]) {
    e.preventDefault();
    location.assign(places[e.key]);
    return;
  }
  going = 0;
  switch (e.key) {
    case "g": going = e.timeStamp; break;
    case "/": {
      const box = $("#filter-q") || $("#search");
      if (box) { e.preventDefault(); box.focus(); box.select(); }
      break;
    }
    case "?": { const help = $("#help"); if (help) { e.preventDefault(); help.showModal(); } break; }
  }
});

// The banner. One failure may be chance; it comes when they last.
const bannerAfter = 1;
let failures = 0, lost = false, bannerTimer;
function answered() {
  failures = 0;
  if (!lost) return;
  lost = false;
  const banner = $("#banner");
  banner.textContent = words().back;
  banner.classList.add("back");
  clearTimeout(bannerTimer);
  bannerTimer = setTimeout(() => { banner.hidden = true; banner.classList.remove("back"); }, 2000);
}
function failed() {
  failures++;
  if (failures < bannerAfter || lost) return;
  lost = true;
  clearTimeout(bannerTimer);
  const banner = $("#banner");
  banner.classList.remove("back");
  banner.textContent = words().lost;
  banner.hidden = false;
}
document.body.addEventListener("htmx:sendError", failed);
document.body.addEventListener("htmx:timeout", failed);
document.body.addEventListener("htmx:afterRequest", (e) => {
  const code = e.detail.xhr?.status || 0;
  if (code === 503 || code === 504) failed();
  else if (code > 0) answered();
});
// What was refused is said where the person looks.
document.body.addEventListener("htmx:responseError", (e) => {
  const code = e.detail.xhr.status;
  if (code === 503 || code === 504) return;
  if (e.detail.requestConfig.verb === "get" && e.detail.elt.id === "live") return;
  $("#dialog-body").innerHTML = e.detail.xhr.responseText;
  openDialog();
});

// Figures glow once when they change.
const glows = new Map();
function noteGlows(root) {
  glows.clear();
  for (const el of root.querySelectorAll("[data-glow]")) glows.set(el.dataset.glow, el.textContent);
}
function showGlows(root) {
  for (const el of root.querySelectorAll("[data-glow]")) {
    const before = glows.get(el.dataset.glow);
    if (before === undefined || before === el.textContent) continue;
    el.classList.remove("glow");
    void el.offsetWidth; // begins the animation anew
    el.classList.add("glow");
  }
}
document.body.addEventListener("htmx:beforeSwap", (e) => {
  // What was asked for before the rows came to be of another search is void. (The
  // event's own element is its target, whoever asked.)
  const live = $("#live");
  if (e.detail.target.id === "rows" && e.detail.requestConfig.elt.id === "live" && live && e.detail.requestConfig.path !== live.getAttribute("hx-get")) {
    e.detail.shouldSwap = false;
    return;
  }
  noteGlows(e.detail.target);
});
document.body.addEventListener("htmx:afterSwap", (e) => {
  const target = e.detail.target;
  if (target.id === "dialog-body" && target.childElementCount) openDialog();
  showGlows(target);
});
// A fragment that is asked for again must not close what a person has open.
document.body.addEventListener("htmx:beforeRequest", (e) => {
  if (e.detail.elt.id === "live" && (document.hidden || $("#now dialog[open]"))) e.preventDefault();
});

// The one event stream of a page. It rests while nobody looks: a browser allows few
// connections to a server, over all its windows.
let stream, retry;
function connect() {
  const at = $("[data-stream]")?.dataset.stream;
  if (!at || stream || document.hidden) return;
  stream = new EventSource(at);
  stream.addEventListener("open", answered);
  stream.addEventListener("changed", () => htmx.trigger(document.body, "q:changed"));
  stream.addEventListener("event", (e) => addEvent(e.data));
  stream.addEventListener("error", () => {
    failed();
    if (stream.readyState !== EventSource.CLOSED) return; // it tries again by itself
    disconnect();
    clearTimeout(retry);
    retry = setTimeout(connect, 3000);
  });
}
function disconnect() {
  stream?.close();
  stream = undefined;
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { disconnect(); return; }
  connect();
  htmx.trigger(document.body, "q:changed");
});
addEventListener("pagehide", disconnect);
function addEvent(html) {
  const list = $("#events");
  if (!list) return;
  $("#no-events")?.remove();
  const holder = document.createElement("template");
  holder.innerHTML = html; // the server's own template, which escapes
  const item = holder.content.firstElementChild;
  if (!item) return;
  item.classList.add("fresh");
  list.prepend(item);
  while (list.childElementCount > Number(list.dataset.most)) list.lastElementChild.remove();
}

// Forms.
document.addEventListener("change", (e) => {
  if (e.target.matches("[data-submit]")) e.target.form.requestSubmit();
  for (const part of document.querySelectorAll("[data-when]")) {
    const [name, value] = part.dataset.when.split("=");
    const field = part.closest("form").elements[name];
    if (field) part.hidden = field.value !== value;
  }
});
// What was typed before this page could listen counts too.
document.addEventListener("DOMContentLoaded", () => {
  const box = $("#filter-q");
  if (box && box.value !== box.defaultValue) htmx.trigger(box.form, "submit");
});
$("form[data-autosubmit]")?.requestSubmit();
connect();
