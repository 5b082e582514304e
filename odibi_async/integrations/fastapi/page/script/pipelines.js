// -- Pipelines, and the form that starts one -----------------------------------------------------

const LAST = 12;
const LATEST = 8;

/** Every pipeline, with how its last runs ended. */
function pipelinesView(query, signal) {
  const list = el("ul.cards");
  const none = el("p.dim", { hidden: true }, "No pipelines.");
  const latest = runsTable(true);
  const search = el("input", { type: "search", size: 16, oninput: () => paint() });
  let pipelines = [],
    runs = [];
  const paint = () => {
    const words = search.value.toLowerCase();
    const found = pipelines.filter((each) => `${each.name} ${each.description ?? ""}`.toLowerCase().includes(words));
    hide(none, found.length > 0);
    hide(search.parentElement, pipelines.length < 8);
    const byName = Map.groupBy ? Map.groupBy(runs, (run) => run.pipeline) : grouped(runs);
    keyed(
      list,
      found.slice(0, 500),
      (each) => each.name,
      pipelineCard,
      (card, each) => card.paint(byName.get(each.name) ?? [])
    );
    latest.paint(runs.slice(0, LATEST));
  };
  const refresh = async () => {
    ({ pipelines } = await ask("GET", address(["pipelines"]), { signal }));
    ({ runs } = await ask("GET", address(["runs"], { limit: 100 }), { signal }));
    paint();
  };
  const element = el(
    "div",
    {},
    el("div.headed", {}, el("h1", {}, "Pipelines"), el("label.tools", {}, "Find ", search)),
    list,
    none,
    el(
      "section",
      {},
      el("div.headed", {}, el("h2", {}, "Latest runs"), el("a", { href: hashOf(["runs"]) }, "All runs")),
      latest.element
    )
  );
  repeatedly(refresh, FRESH, signal);
  return element;
}

function grouped(runs) {
  const groups = new Map();
  for (const run of runs) groups.set(run.pipeline, [...(groups.get(run.pipeline) ?? []), run]);
  return groups;
}

function pipelineCard(pipeline) {
  const dots = el("span.dots");
  const last = el("span.dim");
  const needed = (pipeline.inputs ?? []).filter((input) => input.required).length;
  const inputs = pipeline.inputs?.length
    ? `${many(pipeline.inputs.length, "input")}${needed ? `, ${needed} required` : ""}`
    : "no inputs";
  const card = el(
    "li",
    {},
    el("h2", {}, el("a", { href: hashOf(["pipelines", pipeline.name]) }, pipeline.name)),
    pipeline.description ? el("p", {}, pipeline.description) : null,
    el("p.dim", {}, inputs),
    el("p.last", {}, dots, last)
  );
  card.paint = (runs) => {
    keyed(
      dots,
      runs.slice(0, LAST).reverse(),
      (run) => run.id,
      dot,
      (one, run) => paintDot(one, run)
    );
    say(last, runs.length ? clock(instant(runs[0].started_at)) : "not run lately");
  };
  return card;
}

function dot(run) {
  return el("a.dot", { href: hashOf(["runs", run.id]) }, el("span", { "aria-hidden": "true" }));
}

function paintDot(one, run) {
  tint(one, run.status);
  say(one.firstChild, glyph(run.status));
  const said = `${run.status}, ${clock(instant(run.started_at))}`;
  if (one.title !== said) one.title = said;
  one.setAttribute("aria-label", `Run ${said}`);
}

/** One pipeline: what it does, the form that starts it, its graph and its runs. */
function pipelineView(name, signal) {
  const element = el("div", {}, el("h1", {}, name));
  const table = runsTable(false);
  const load = async () => {
    const pipeline = await ask("GET", address([name]), { signal });
    const graph = graphView(name, signal);
    element.append(
      pipeline.description ? el("p.lead", {}, pipeline.description) : "",
      startForm(pipeline),
      graph.element,
      el("section", {}, el("h2", {}, "Runs"), table.element)
    );
    const refresh = async () =>
      table.paint((await ask("GET", address(["runs"], { pipeline: name, limit: 10 }), { signal })).runs);
    repeatedly(refresh, FRESH, signal);
  };
  load().catch(complain);
  return element;
}

/** The form that starts a pipeline, made from the JSON Schema of its inputs. */
function startForm(pipeline) {
  const schema = pipeline.schema ?? {};
  const required = new Set(schema.required ?? []);
  const inputs = Object.entries(schema.properties ?? {}).map(([name, each]) =>
    field(name, each, schema, required.has(name))
  );
  const options = optionFields();
  const targets = targetBoxes(pipeline.targets ?? []);
  const others = el("p.wrong", { role: "alert" });
  const button = el("button.primary", { type: "submit" }, "Start");
  const form = el(
    "form.start",
    { novalidate: true, "aria-label": `Start ${pipeline.name}` },
    el("h2", {}, "Start"),
    inputs.length ? null : el("p.dim", {}, "It needs no inputs."),
    el(
      "div.fields",
      {},
      inputs.map((each) => each.element)
    ),
    el(
      "details",
      {},
      el("summary", {}, "Options"),
      options.map((each) => each.element),
      targets.element
    ),
    others,
    button
  );
  const sending = { key: unique() };
  form.addEventListener("input", () => {
    sending.key = unique();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start(pipeline.name, { inputs, options, targets, others, button, sending });
  });
  return form;
}

function optionFields() {
  const schema = { type: "number", exclusiveMinimum: 0, description: "Seconds after which the run is stopped." };
  return [field("timeout_s", schema, {}, false)];
}

/** The datasets that may be asked for; none ticked means all. */
function targetBoxes(names) {
  const boxes = names.slice(0, 200).map((name) => el("input", { type: "checkbox", value: name }));
  const element =
    names.length < 2
      ? null
      : el(
          "fieldset",
          {},
          el("legend", {}, "Targets ", el("span.dim", {}, "none ticked: all")),
          boxes.map((box) => el("label.box", {}, box, " ", el("span.name", {}, box.value)))
        );
  return { element, chosen: () => boxes.filter((box) => box.checked).map((box) => box.value) };
}

/** Starts a run. Sent again after a silence, the same key gives the same run and not a second one. */
async function start(name, { inputs, options, targets, others, button, sending }) {
  say(others, "");
  uncomplain();
  const given = readAll(inputs),
    more = readAll(options);
  if (given === null || more === null) return;
  const wanted = targets.chosen().length ? `,"targets":${JSON.stringify(targets.chosen())}` : "";
  const body = `{"inputs":${given}${wanted}${more === "{}" ? "" : `,${more.slice(1, -1)}`}}`;
  button.disabled = true;
  try {
    const run = await ask("POST", address([name, "runs"]), { body, headers: { "Idempotency-Key": sending.key } });
    location.hash = hashOf(["runs", run.id]);
  } catch (error) {
    if (error.status !== 0) sending.key = unique();
    const left = showErrors([...inputs, ...options], error.errors ?? []);
    if (error.errors?.length) say(others, left.join(" ") || "Some values are not right.");
    else complain(error);
  }
  button.disabled = false;
}

function unique() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
