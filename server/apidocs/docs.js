// Shows openapi.json: routes by resource, and schemas. Everything is put in as text,
// never as HTML.
"use strict";

const el = (name, attributes, ...children) => {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attributes || {})) {
    if (v !== undefined && v !== false) e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== ""));
  return e;
};

const nameOf = (ref) => ref.slice(ref.lastIndexOf("/") + 1);
const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
const link = (ref) => el("a", { href: "#schema-" + slug(nameOf(ref)) }, nameOf(ref));

// paragraphs splits text at empty lines, and shows what stands in backticks as code.
const paragraphs = (text) => (text || "").split(/\n\n+/).filter(Boolean).map((part) =>
  el("p", {}, part.split("`").map((piece, i) => (i % 2 ? el("code", {}, piece) : piece))));

// typeOf says what a schema is, in a few words.
const typeOf = (s) => {
  if (!s) return ["any"];
  if (s.$ref) return [link(s.$ref)];
  if (s.const !== undefined) return [JSON.stringify(s.const)];
  if (s.enum) return [s.enum.map((v) => JSON.stringify(v)).join(" | ")];
  if (s.type === "array" || (Array.isArray(s.type) && s.items)) return ["list of ", ...typeOf(s.items)];
  if (s.additionalProperties && typeof s.additionalProperties === "object") return ["map of ", ...typeOf(s.additionalProperties)];
  const type = Array.isArray(s.type) ? s.type.join(" | ") : s.type || (s["x-kubernetes-int-or-string"] ? "integer | string" : "any");
  return [s.format ? type + " (" + s.format + ")" : type];
};

const inner = (s) => (s && s.items ? inner(s.items) : s && s.additionalProperties && s.additionalProperties.properties ? s.additionalProperties : s);

const fields = (schema) => {
  const s = inner(schema);
  if (!s || !s.properties) return "";
  const required = new Set(s.required || []);
  return el("ul", { class: "fields" }, Object.keys(s.properties).sort().map((name) => {
    const p = s.properties[name];
    const notes = [];
    if (p.default !== undefined) notes.push(" = " + JSON.stringify(p.default));
    if (p.readOnly) notes.push(" · set by the server");
    return el("li", {},
      el("span", { class: "field" }, name),
      el("small", {}, typeOf(p), notes),
      required.has(name) ? el("span", { class: "must" }, "required") : "",
      paragraphs(p.description),
      fields(p));
  }));
};

const bodies = (content) => Object.entries(content || {}).map(([type, media]) =>
  el("div", {}, el("code", {}, type), " ", typeOf(media.schema), media.schema && !media.schema.$ref ? fields(media.schema) : ""));

const curl = (method, path, op) => {
  const lines = ["curl -H \"Authorization: Bearer $TOKEN\""];
  if (method !== "get") lines.push("-X " + method.toUpperCase());
  const sent = op.requestBody && Object.keys(op.requestBody.content || {})[0];
  if (sent === "application/json") lines.push("-H 'Content-Type: application/json' -d @body.json");
  else if (sent) lines.push("--data-binary @file");
  lines.push("'" + location.origin + path.replace(/\{(\w+)\}/g, (_, n) => n.toUpperCase()) + "'");
  return lines.join(" ");
};

const operation = (path, method, op) => {
  const parameters = (op.parameters || []).map((p) => el("tr", {},
    el("td", {}, el("code", {}, p.name), p.required ? el("span", { class: "must" }, "required") : ""),
    el("td", { class: "type" }, p.in + ", ", typeOf(p.schema)),
    el("td", {}, p.description || "")));
  const answers = Object.entries(op.responses || {}).map(([code, r]) => el("tr", {},
    el("td", {}, el("code", {}, code), " ", r.description || ""),
    el("td", {}, bodies(r.content))));
  return el("details", { id: op.operationId, "data-text": [method, path, op.summary, op.description, op.operationId].join(" ").toLowerCase() },
    el("summary", {},
      el("span", { class: "method " + method }, method.toUpperCase()),
      el("span", { class: "path" }, path),
      el("span", { class: "about" }, op.summary || "")),
    el("div", { class: "body" },
      paragraphs(op.description),
      parameters.length ? [el("h3", {}, "Parameters"), el("table", {}, parameters)] : "",
      op.requestBody ? [el("h3", {}, "Body"), bodies(op.requestBody.content)] : "",
      el("h3", {}, "Answers"), el("table", {}, answers),
      el("h3", {}, "Try it"), el("pre", {}, curl(method, path, op))));
};

const show = (doc) => {
  const main = document.getElementById("main");
  const nav = document.getElementById("nav");
  const byTag = new Map();
  const order = ["get", "post", "put", "delete"];
  for (const path of Object.keys(doc.paths).sort()) {
    for (const method of order) {
      const op = doc.paths[path][method];
      if (!op) continue;
      const tag = (op.tags || ["other"])[0];
      if (!byTag.has(tag)) byTag.set(tag, []);
      byTag.get(tag).push(operation(path, method, op));
    }
  }
  main.replaceChildren(el("section", {}, paragraphs(doc.info.description)));
  nav.replaceChildren(el("h2", {}, "Routes"));
  for (const tag of [...byTag.keys()].sort()) {
    nav.append(el("a", { href: "#routes-" + slug(tag) }, tag));
    main.append(el("section", { id: "routes-" + slug(tag) }, el("h2", {}, tag), byTag.get(tag)));
  }
  nav.append(el("h2", {}, "Schemas"));
  const schemas = el("section", { id: "schemas" }, el("h2", {}, "Schemas"));
  for (const name of Object.keys(doc.components.schemas).sort()) {
    const s = doc.components.schemas[name];
    const id = "schema-" + slug(name);
    nav.append(el("a", { href: "#" + id }, name));
    schemas.append(el("details", { id, "data-text": (name + " " + JSON.stringify(s)).toLowerCase() },
      el("summary", {}, el("span", { class: "path" }, name)),
      el("div", { class: "body" }, paragraphs(s.description), fields(s))));
  }
  main.append(schemas);
};

const open = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (!target) return;
  if (target.tagName === "DETAILS") target.open = true;
  target.scrollIntoView();
};

const find = (text) => {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const d of document.querySelectorAll("details")) {
    d.hidden = !words.every((w) => d.dataset.text.includes(w));
  }
  for (const s of document.querySelectorAll("main > section[id]")) {
    s.hidden = !s.querySelector("details:not([hidden])");
  }
};

fetch("openapi.json", { headers: { Accept: "application/json" } })
  .then((r) => (r.ok ? r.json() : Promise.reject(new Error("the server answered " + r.status))))
  .then((doc) => {
    show(doc);
    open();
    addEventListener("hashchange", open);
    document.getElementById("find").addEventListener("input", (e) => find(e.target.value));
  })
  .catch((err) => {
    document.getElementById("main").replaceChildren(
      el("p", { role: "alert" }, "openapi.json could not be read: " + err.message + ". Log in again, and reload this page."));
  });
