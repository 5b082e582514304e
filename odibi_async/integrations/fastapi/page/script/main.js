// -- Which view ----------------------------------------------------------------------------------

const VIEWS = {
  pipelines: ([name], query, signal) =>
    name === undefined ? pipelinesView(query, signal) : pipelineView(name, signal),
  runs: ([id], query, signal) => (id === undefined ? runsView(query, signal) : runView(id, signal)),
  schedules: (parts, query, signal) => upkeepView(SCHEDULES, signal),
  streams: (parts, query, signal) => upkeepView(STREAMS, signal)
};
let leaving = new AbortController();

/** The part of an address after #: hashOf(["runs"], { status: "failed" }). */
function hashOf(parts, query) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value);
  const tail = new URLSearchParams(given).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${tail ? `?${tail}` : ""}`;
}

function route() {
  const [path, tail] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/").filter(Boolean).map(decoded);
  const query = Object.fromEntries(new URLSearchParams(tail ?? ""));
  return Object.hasOwn(VIEWS, parts[0])
    ? { view: parts[0], parts: parts.slice(1), query }
    : { view: "pipelines", parts: [], query };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Shows what the address says, and ends everything that the view before it was doing. */
function show() {
  leaving.abort();
  document.querySelectorAll("dialog").forEach((dialog) => dialog.close(""));
  leaving = new AbortController();
  uncomplain();
  const { view, parts, query } = route();
  document.title = [...parts, view[0].toUpperCase() + view.slice(1)].join(" · ");
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("main").replaceChildren(VIEWS[view](parts, query, leaving.signal));
}

/** Shows the sections that this service has. */
async function discover() {
  for (const kind of [SCHEDULES, STREAMS]) {
    const answer = await ask("GET", address([kind.name])).catch(() => null);
    hide(document.querySelector(`#nav [data-view=${kind.name}]`), !answer?.[kind.name]?.length);
  }
}

addEventListener("hashchange", () => {
  show();
  byId("main").focus({ preventScroll: true });
  scrollTo(0, 0);
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
byId("token-button").addEventListener("click", () => {
  askForToken(null);
  byId("token-value").focus();
});
show();
discover();
