// -- The graph -----------------------------------------------------------------------------------

const DRAWN = new Set([
  "svg",
  "g",
  "rect",
  "path",
  "text",
  "tspan",
  "title",
  "circle",
  "line",
  "polygon",
  "polyline",
  "ellipse"
]);
const PLACED = "d|x|y|x1|y1|x2|y2|cx|cy|r|rx|ry|dx|dy|width|height|points|viewBox|transform";
const PAINTED = "fill|opacity|stroke(-.+)?|font(-.+)?|text-anchor|color";
const KEPT = new RegExp(`^(${PLACED}|${PAINTED}|class|role|aria-label|data-.+)$`);
const MOSAIC = 2000;

/** An SVG document of the service, taken apart by the browser as it arrives: this page turns no text into elements. */
function fetchDrawing(url, signal) {
  return new Promise((resolve, reject) => {
    const asked = new XMLHttpRequest();
    asked.open("GET", url);
    asked.responseType = "document";
    asked.overrideMimeType("image/svg+xml");
    for (const [name, value] of Object.entries(token.headers())) asked.setRequestHeader(name, value);
    asked.onload = () =>
      asked.status === 200 ? resolve(asked.responseXML) : reject(new Problem(asked.status, { title: "No drawing" }));
    asked.onerror = () => reject(new Problem(0, { detail: SILENT }));
    signal.addEventListener("abort", () => asked.abort(), { once: true });
    asked.send();
  });
}

/** A copy of a drawing that holds shapes and texts alone: no links, no styles, no handlers. */
function copied(node) {
  if (!DRAWN.has(node.localName)) return null;
  const made = document.createElementNS(SVG, node.localName);
  for (const { name, value } of node.attributes) if (KEPT.test(name)) made.setAttribute(name, value);
  for (const child of node.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) made.append(child.data);
    else if (child.nodeType === Node.ELEMENT_NODE) made.append(copied(child) ?? "");
  }
  return made;
}

/** The drawing of a pipeline with tools to see it large and small; `colour(statusOf)` gives each step its status. */
function graphView(name, signal, onStep) {
  const frame = el("div.drawing", { tabindex: 0, role: "region", "aria-label": "Graph" });
  const tools = el("div.tools", {});
  const element = el("section", {}, el("div.headed", {}, el("h2", {}, "Graph"), tools), frame);
  let nodes = [];
  let statusOf = null;
  const paint = () => {
    if (statusOf) nodes.forEach((node) => node.paint(statusOf(node.step)));
  };
  const loaded = fetchDrawing(address([name, "graph.svg"]), signal)
    .then((drawing) => {
      const svg = copied(drawing.documentElement);
      nodes = [...svg.querySelectorAll("[data-step], [data-name]")].map((group) => nodeOf(group, onStep));
      frame.replaceChildren(svg);
      zoomTools(tools, frame, svg);
      paint();
    })
    .catch((error) => {
      if (!signal.aborted) frame.replaceChildren(el("p.dim", {}, `The drawing cannot be shown. ${error.message}`));
    });
  const colour = (given) => {
    statusOf = given;
    paint();
  };
  return { element, colour, loaded };
}

function nodeOf(group, onStep) {
  const step = group.dataset.step ?? group.dataset.name;
  const label = group.querySelector("text");
  const words = label?.textContent ?? "";
  const paint = (status) => {
    if (status === undefined) return;
    tint(group, status);
    if (label) say(label, status === "waiting" ? words : `${glyph(status)} ${words}`);
  };
  if (onStep) group.addEventListener("click", () => onStep(step));
  return { step, paint };
}

function zoomTools(tools, frame, svg) {
  const width = Number(svg.getAttribute("width")) || 800;
  let zoom = 0;
  const to = (factor) => {
    zoom = Math.min(4, factor);
    frame.classList.toggle("free", zoom > 0);
    svg.setAttribute("width", width * (zoom || 1));
  };
  const shown = () => zoom || svg.getBoundingClientRect().width / width;
  const button = (label, said, next) =>
    el("button.small", { type: "button", "aria-label": said, onclick: () => to(next()) }, label);
  tools.replaceChildren(
    button("Fit", "Fit the graph", () => 0),
    button("100 %", "Graph at its own size", () => 1),
    button("−", "Smaller graph", () => shown() / 1.25),
    button("+", "Larger graph", () => shown() * 1.25)
  );
  if (matchMedia("(max-width: 40rem)").matches && width > 600) to(1);
}

/** The steps of a large graph as a field of squares, one each: the drawing puts many of them into one box. */
function mosaic(names, onStep) {
  const shown = names.slice(0, MOSAIC);
  const across = Math.max(20, Math.ceil(Math.sqrt(shown.length * 8)));
  const down = Math.ceil(shown.length / across);
  const squares = shown.map((name, place) => {
    const square = svgEl(
      "rect.square",
      { x: (place % across) * 10, y: Math.floor(place / across) * 10, width: 8, height: 8, rx: 1.5 },
      svgEl("title", {}, name)
    );
    square.addEventListener("click", () => onStep(name));
    return square;
  });
  const element = svgEl(
    "svg.mosaic",
    {
      viewBox: `0 0 ${across * 10} ${down * 10}`,
      role: "img",
      "aria-label": `A square for each of ${many(shown.length, "step")}`
    },
    squares
  );
  return { element, colour: (statusOf) => squares.forEach((square, place) => tint(square, statusOf(shown[place]))) };
}
