// -- Elements ------------------------------------------------------------------------------------
// Every text becomes a text node and every element is made here, so nothing that a service says is taken for HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element: el("button.primary", { type: "button", onclick: start }, "Start"). */
function el(kind, attributes, ...children) {
  const [name, ...classes] = kind.split(".");
  return filled(document.createElement(name), classes, attributes, children);
}

/** The same for SVG. */
function svgEl(kind, attributes, ...children) {
  const [name, ...classes] = kind.split(".");
  return filled(document.createElementNS(SVG, name), classes, attributes, children);
}

function filled(element, classes, attributes, children) {
  element.classList.add(...classes);
  for (const [name, value] of Object.entries(attributes ?? {})) give(element, name, value);
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false)
  );
  return element;
}

function give(element, name, value) {
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
  else if (value === true) element.setAttribute(name, "");
  else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
}

const byId = (id) => document.getElementById(id);

/** Changes a text only where it differs, so that nothing is painted or announced twice. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function hide(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

/** Gives an element one of the classes that tell a status, in place of the one it had. */
function tint(element, status) {
  const name = `is-${status || "waiting"}`;
  if (element.dataset.tint === name) return;
  if (element.dataset.tint) element.classList.remove(element.dataset.tint);
  element.dataset.tint = name;
  element.classList.add(name);
}

const rowsOf = new WeakMap();

/**
 * Makes the children of `parent` those of `items`. Each is made once, by its key, and changed in place from then on:
 * a list that is refreshed keeps the focus, the selection and what is unfolded.
 */
function keyed(parent, items, key, create, update) {
  const old = rowsOf.get(parent) ?? new Map();
  const rows = new Map();
  for (const item of items) {
    const id = key(item);
    const row = old.get(id) ?? create(item);
    update(row, item);
    rows.set(id, row);
  }
  for (const [id, row] of old) if (!rows.has(id)) row.remove();
  let next = parent.firstChild;
  for (const row of rows.values()) {
    if (row === next) next = next.nextSibling;
    else parent.insertBefore(row, next);
  }
  rowsOf.set(parent, rows);
}

/** Calls `paint` soon, once for any number of changes and at most eight times a second. */
function painter(paint) {
  let waiting = false;
  const now = () => {
    waiting = false;
    paint();
  };
  return () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => (document.hidden ? now() : requestAnimationFrame(now)), 125);
  };
}

/** Tells those who cannot see the page. */
function announce(text) {
  byId("said").textContent = text;
}

/** A dialog that asks a question, perhaps with fields; true if it was answered with yes. */
function confirmed(question, yes, no, fields = []) {
  return new Promise((resolve) => {
    const answer = (event) => {
      event.preventDefault();
      dialog.close("yes");
    };
    const dialog = el(
      "dialog",
      { "aria-labelledby": "question" },
      el(
        "form",
        { onsubmit: answer },
        el("p", { id: "question" }, question),
        fields,
        el(
          "div.tools",
          {},
          el(fields.length ? "button.primary" : "button.danger", { type: "submit" }, yes),
          el("button", { type: "button", autofocus: !fields.length, onclick: () => dialog.close("") }, no)
        )
      )
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
