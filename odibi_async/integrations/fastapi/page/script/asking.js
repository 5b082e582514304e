// -- Asking the service --------------------------------------------------------------------------

const BASE = location.origin + location.pathname.replace(/\/?$/, "/");

/** The address of something under the router: address(["runs", id], { limit: 20 }). */
function address(parts, query) {
  const given = Object.entries(query ?? {}).filter(
    ([, value]) => value !== undefined && value !== null && value !== ""
  );
  const tail = new URLSearchParams(given).toString();
  return BASE + parts.map(encodeURIComponent).join("/") + (tail ? `?${tail}` : "");
}

/** The address of a run, or of something of it. Names that no path can hold as they are stand there as Base64. */
function runAddress(id, parts = [], query) {
  const bare = !/^~|^\.{1,2}$|[/\p{C}]/u.test(id);
  const bytes = bare ? [] : new TextEncoder().encode(id);
  const coded = btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  return address(["runs", bare ? id : `~${coded}`, ...parts], query);
}

/** What went wrong, as the problem document of RFC 9457 says it. */
class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail || body.title || `The service answered ${status}.`);
    this.status = status;
    this.title = body.title ?? "";
    this.code = body.code ?? "";
    this.errors = Array.isArray(body.errors) ? body.errors : [];
    this.retryAfter = retryAfter;
  }
}

const SILENT = "The service does not answer.";
const FOREIGN = "The service answered with something else than JSON. Are you signed in?";

/** The token that is sent along; kept for this tab alone. */
const token = {
  get() {
    try {
      return JSON.parse(sessionStorage.getItem("odibi_async.token"));
    } catch {
      return null;
    }
  },
  set(header, value) {
    if (value) sessionStorage.setItem("odibi_async.token", JSON.stringify({ header, value }));
    else sessionStorage.removeItem("odibi_async.token");
  },
  headers() {
    const kept = token.get();
    if (!kept) return {};
    const bare = kept.header.toLowerCase() === "authorization" && !kept.value.includes(" ");
    return { [kept.header]: bare ? `Bearer ${kept.value}` : kept.value };
  }
};

/** The answer to a request, if it is a good one; else the `Problem`. A body is JSON already, as a text. */
async function request(method, url, { body, headers, signal } = {}) {
  const options = {
    method,
    signal,
    cache: "no-store",
    credentials: "same-origin",
    headers: { Accept: "application/json", ...token.headers(), ...headers }
  };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = body;
  }
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, {
      detail: error.message.includes("header") ? `This token cannot be sent: ${error.message}` : SILENT
    });
  }
  if (response.ok) return response;
  throw await problem(response);
}

async function problem(response) {
  const body = await response.json().catch(() => ({}));
  const found = new Problem(response.status, body ?? {}, Number(response.headers.get("Retry-After")) || null);
  if (isShutOut(found)) askForToken(found);
  return found;
}

function isShutOut(error) {
  return error.status === 401 || error.status === 403;
}

/** What the service answers, as JSON. */
async function ask(method, url, options) {
  const response = await request(method, url, options);
  try {
    return await response.json();
  } catch {
    throw new Problem(response.status, { detail: FOREIGN });
  }
}

/** The same, with the milliseconds by which this clock is ahead of that of the service. */
async function askWithSkew(url, options) {
  const response = await request("GET", url, options);
  const there = Date.parse(response.headers.get("Date") ?? "");
  const answer = await response.json().catch(() => null);
  if (answer === null) throw new Problem(response.status, { detail: FOREIGN });
  return [answer, Number.isNaN(there) ? 0 : Date.now() - there];
}

/** Opens what a link leads to. With a token, which no link can send, it is fetched and saved as a file. */
function linkTo(url, name, label, described) {
  return el(
    "a",
    {
      href: url,
      target: "_blank",
      rel: "noopener",
      "aria-label": described,
      onclick: (event) => save(event, url, name)
    },
    label
  );
}

async function save(event, url, name) {
  if (!token.get()) return;
  event.preventDefault();
  try {
    const response = await request("GET", url, { headers: { Accept: "*/*" } });
    const link = el("a", { href: URL.createObjectURL(await response.blob()), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    complain(error);
  }
}

/**
 * Shows what went wrong at the foot of the page: of an action until the next one, of refreshing until that works again.
 * Who is not let in is asked for a token instead.
 */
function complain(error, from = "action") {
  if (error.name === "AbortError") return;
  if (isShutOut(error)) {
    if (from === "action") byId("token-value")?.focus();
    return;
  }
  byId("trouble").dataset.from = from;
  if (!(error instanceof Problem)) console.error(error);
  const wait = error.retryAfter ? ` Try again in ${many(error.retryAfter, "second")}.` : "";
  const code = error.code ? ` (${error.code})` : "";
  say(byId("trouble"), `${error.message}${code}${wait}`);
}

function uncomplain(from) {
  const trouble = byId("trouble");
  if (!from || trouble.dataset.from === from) say(trouble, "");
}

/** Shows the field for a token, with the reason. */
function askForToken(found) {
  const section = byId("token");
  if (section.hidden || !section.firstChild) {
    section.replaceChildren(tokenForm(token.get()));
    section.hidden = false;
  }
  const why =
    found?.status === 401 ? "The service wants to know who you are." : "The service does not let you do this.";
  say(
    byId("token-why"),
    found
      ? `${why} It says: ${found.message}`
      : "It is sent with every request of this tab, and forgotten when you close it."
  );
}

function tokenForm(kept) {
  const value = el("input", {
    id: "token-value",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    value: kept?.value ?? ""
  });
  const header = el("input", {
    id: "token-header",
    value: kept?.header ?? "Authorization",
    spellcheck: "false",
    pattern: "[A-Za-z0-9_\\-]+",
    required: true
  });
  const close = () => {
    byId("token").hidden = true;
  };
  const keep = (event) => {
    event.preventDefault();
    token.set(header.value.trim(), value.value.trim());
    close();
    uncomplain();
    byId("main").focus();
    show();
    discover();
  };
  return el(
    "form",
    { onsubmit: keep },
    el("h2", { id: "token-title" }, "Token"),
    el("p.dim", { id: "token-why" }),
    el(
      "div.tools",
      {},
      el("label", {}, "Token ", value),
      el("label", {}, "Header ", header),
      el("button.primary", { type: "submit" }, "Use it"),
      el("button", { type: "button", onclick: close }, "Close")
    )
  );
}
