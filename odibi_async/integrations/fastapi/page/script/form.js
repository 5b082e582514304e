// -- A form from a JSON Schema -------------------------------------------------------------------
// A field gives its value as JSON text, as it was typed: whole numbers of any length arrive as they are.

const NEEDED = "A value is needed.";
const WHOLE = /^[+-]?\d+$/;
const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const JSON_NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?$/i;
const NATIVE = {
  date: "date",
  "date-time": "datetime-local",
  time: "time",
  password: "password",
  email: "email",
  uri: "url"
};
let fields = 0;

/** A schema without references and without null, and whether null was in it. */
function settled(schema, root, depth = 0) {
  if (typeof schema !== "object" || schema === null || depth > 20) return { schema: {}, nullable: true };
  if (schema.$ref) return settled({ ...pointed(schema.$ref, root), ...without(schema, "$ref") }, root, depth + 1);
  if (schema.allOf?.length === 1) return settled({ ...schema.allOf[0], ...without(schema, "allOf") }, root, depth + 1);
  const ways = schema.anyOf ?? schema.oneOf;
  if (ways) {
    const others = ways.filter((way) => way.type !== "null");
    const rest = without(schema, "anyOf", "oneOf");
    const nullable = others.length < ways.length;
    if (others.length !== 1) return { schema: { ...rest, anyOf: others }, nullable };
    const only = settled({ ...others[0], ...rest }, root, depth + 1);
    return { schema: only.schema, nullable: nullable || only.nullable };
  }
  if (!Array.isArray(schema.type)) return { schema, nullable: false };
  const types = schema.type.filter((type) => type !== "null");
  return {
    schema: { ...schema, type: types.length === 1 ? types[0] : types },
    nullable: types.length < schema.type.length
  };
}

function pointed(ref, root) {
  const parts = String(ref)
    .replace(/^#\/?/, "")
    .split("/")
    .map((part) => part.replace(/~1/g, "/").replace(/~0/g, "~"));
  return parts.reduce((found, part) => (found && Object.hasOwn(found, part) ? found[part] : undefined), root) ?? {};
}

function without(object, ...names) {
  return Object.fromEntries(Object.entries(object).filter(([name]) => !names.includes(name)));
}

/** What a reader is told that a field takes. */
function typeOf(schema) {
  if (schema.enum || schema.const !== undefined) return "";
  if (schema.anyOf) return `${schema.anyOf.map(typeOf).filter(Boolean).join(" or ") || "any"}, as JSON`;
  if (schema.type === "array" || schema.type === "object") return `${schema.type}, as JSON`;
  if (!schema.type || Array.isArray(schema.type)) return "JSON";
  return schema.format ?? schema.type;
}

/**
 * The field of one input.
 *
 * It is an object with `element`; `read()`, which gives the value as JSON text, `undefined` where it is left out, and
 * throws where it cannot be right; and `fail(message)`.
 */
function field(name, given, root, required) {
  const { schema, nullable } = settled(given, root);
  const spec = { name, schema, nullable, required, preset: "default" in schema ? schema.default : undefined };
  const control = controlOf(spec);
  return framed(control, name, typeOf(schema), schema.description, required);
}

function controlOf(spec) {
  const { schema } = spec;
  if (schema.enum || schema.const !== undefined) return choice(spec, schema.enum ?? [schema.const]);
  if (schema.type === "boolean") return spec.nullable ? choice(spec, [true, false]) : tick(spec);
  if (schema.type === "integer" || schema.type === "number")
    return typed(spec, { inputmode: schema.type === "integer" ? "numeric" : "decimal" }, numeral);
  if (schema.type === "string") return typed(spec, { type: native(spec) }, words);
  return typed(spec, { rows: 3, spellcheck: "false" }, json, "textarea");
}

/** The kind of field for a text; a time that has a zone is typed, since the field for times knows none. */
function native({ schema, preset }) {
  if (schema.writeOnly) return "password";
  if (schema.format === "date-time" && /(Z|[+-]\d\d:?\d\d)$/.test(preset ?? "")) return "text";
  return NATIVE[schema.format] ?? "text";
}

/** A label, the control, what is to be said of it, and room for what is wrong with it. */
function framed(control, name, type, description, required) {
  const id = `field-${(fields += 1)}`;
  const wrong = el("p.wrong", { id: `${id}-wrong` });
  const help = description ? el("p.dim", { id: `${id}-help` }, description) : null;
  const { input } = control;
  input.id = id;
  input.setAttribute("aria-describedby", `${help ? `${help.id} ` : ""}${wrong.id}`);
  if (required && input.type !== "checkbox") input.setAttribute("aria-required", "true");
  const label = el(
    "label",
    { for: id },
    el("span.name", {}, name),
    " ",
    el("span.dim", {}, [type, required ? "" : "optional"].filter(Boolean).join(", "))
  );
  const fail = (message) => {
    say(wrong, message);
    if (message) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  };
  input.addEventListener("input", () => fail(""));
  const boxed = input.type === "checkbox";
  const element = el(
    boxed ? "div.field.ticked" : "div.field",
    {},
    boxed ? [input, label] : [label, input],
    help,
    wrong
  );
  return { name, element, input, read: control.read, fail };
}

/** A field that is typed into. What stands there from the start and is left is not sent. */
function typed(spec, attributes, jsonOf, kind = "input") {
  const input = el(kind, { autocomplete: "off", ...attributes });
  if (input.type === "datetime-local" || input.type === "time") input.step = "1";
  const { preset } = spec;
  if (preset !== undefined && preset !== null) input.value = jsonOf === json ? printed(preset) : preset;
  const initial = input.value;
  const read = () => {
    if (input.validity.badInput) throw new Error("This is not complete.");
    if (!spec.required && input.value === initial) return undefined;
    return input.value.trim() === "" ? emptied(spec, jsonOf) : jsonOf(input.value, spec.schema);
  };
  return { input, read };
}

/** JSON for reading: on one line if it is short. */
function printed(value) {
  const line = JSON.stringify(value);
  return line.length < 60 ? line : JSON.stringify(value, null, 1);
}

function emptied(spec, jsonOf) {
  if (spec.nullable) return "null";
  if (spec.required) throw new Error(NEEDED);
  return jsonOf === words ? '""' : undefined;
}

const words = (raw) => JSON.stringify(raw);

function numeral(raw, schema) {
  const typedIn = raw.trim();
  if (!DECIMAL.test(typedIn)) throw new Error("This is not a number.");
  if (schema.type === "integer" && !WHOLE.test(typedIn)) throw new Error("This has to be a whole number.");
  const value = Number(typedIn);
  if (value < schema.minimum) throw new Error(`The least is ${schema.minimum}.`);
  if (value > schema.maximum) throw new Error(`The most is ${schema.maximum}.`);
  if (value <= schema.exclusiveMinimum) throw new Error(`It has to be more than ${schema.exclusiveMinimum}.`);
  if (value >= schema.exclusiveMaximum) throw new Error(`It has to be less than ${schema.exclusiveMaximum}.`);
  if (!Number.isFinite(value)) throw new Error("This number is too large.");
  if (JSON_NUMBER.test(typedIn)) return typedIn;
  return schema.type === "integer" ? String(BigInt(typedIn.replace("+", ""))) : String(value);
}

function json(raw, schema) {
  let value;
  try {
    value = JSON.parse(raw);
  } catch (error) {
    throw new Error(`This is not JSON: ${error.message}`);
  }
  if (schema.type === "array" && !Array.isArray(value)) throw new Error('A list is needed, such as ["a", "b"].');
  if (schema.type === "object" && (value === null || typeof value !== "object" || Array.isArray(value))) {
    throw new Error('An object is needed, such as {"a": 1}.');
  }
  return raw.trim();
}

function tick({ preset, required }) {
  const input = el("input", { type: "checkbox", checked: preset === true });
  const read = () => (!required && input.checked === (preset === true) ? undefined : String(input.checked));
  return { input, read };
}

/** One of some values, of any kind. */
function choice(spec, values) {
  const same = (value) => JSON.stringify(value) === JSON.stringify(spec.preset);
  const has = values.some(same);
  const texts = values.map((value) => (typeof value === "string" ? value : JSON.stringify(value)));
  const none = spec.required ? (spec.nullable ? "null" : "Choose…") : "(left out)";
  const input = el(
    "select",
    {},
    has && !spec.nullable ? null : el("option", { value: "" }, none),
    texts.map((label, place) => el("option", { value: String(place), selected: same(values[place]) }, label))
  );
  const initial = input.value;
  const read = () => {
    if (!spec.required && input.value === initial) return undefined;
    if (input.value !== "") return JSON.stringify(values[Number(input.value)]);
    if (spec.nullable) return "null";
    if (spec.required) throw new Error(NEEDED);
    return undefined;
  };
  return { input, read };
}

/** Reads all fields; what cannot be right is told at its field. The members of a JSON object, or null. */
function readAll(all) {
  const members = [];
  let wrong = null;
  for (const each of all) {
    try {
      const value = each.read();
      each.fail("");
      if (value !== undefined) members.push(`${JSON.stringify(each.name)}:${value}`);
    } catch (error) {
      each.fail(error.message);
      wrong ??= each;
    }
  }
  wrong?.input.focus();
  return wrong ? null : `{${members.join(",")}}`;
}

/** Shows the errors of a problem at their fields; gives those that belong to none. */
function showErrors(all, errors) {
  const told = new Map(),
    others = [];
  for (const error of errors) {
    const place = String(error.field ?? "").replace(/^body\./, "");
    const [found, rest] = owner(all, place);
    const message = rest ? `${rest}: ${text(error.message)}` : text(error.message);
    if (found) told.set(found, [...(told.get(found) ?? []), message]);
    else others.push(place ? `${place}: ${text(error.message)}` : text(error.message));
  }
  for (const [each, messages] of told) each.fail(messages.join(" "));
  all.find((each) => told.has(each))?.input.focus();
  return others;
}

/** The field that an error is about, and where in its value: inputs.days.0 is about the first of `days`. */
function owner(all, place) {
  for (const each of [...all].sort((a, b) => b.name.length - a.name.length)) {
    for (const start of [`inputs.${each.name}`, each.name]) {
      if (place === start) return [each, ""];
      if (place.startsWith(`${start}.`)) return [each, place.slice(start.length + 1)];
    }
  }
  return [null, ""];
}
