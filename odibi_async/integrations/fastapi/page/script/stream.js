// -- Server-Sent Events --------------------------------------------------------------------------
// Read with fetch, since an EventSource cannot send a header.

/** Takes the bytes of a stream of events apart: feed(text) gives the events that are complete. */
function eventParser() {
  let rest = "",
    lines = [];
  const event = () => {
    const found = { id: null, name: "message", data: "" };
    const data = [];
    for (const line of lines) {
      const [field, value] = split(line);
      if (field === "id") found.id = value;
      else if (field === "event") found.name = value;
      else if (field === "data") data.push(value);
    }
    lines = [];
    found.data = data.join("\n");
    return data.length ? found : null;
  };
  return (text) => {
    const parts = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = parts.pop();
    const found = [];
    for (const line of parts) {
      if (line) lines.push(line);
      else if (lines.length) found.push(event());
    }
    return found.filter(Boolean);
  };
}

/** "data: x" as ["data", "x"]; a comment as ["", ...]. */
function split(line) {
  const colon = line.indexOf(":");
  if (colon < 0) return [line, ""];
  return [line.slice(0, colon), line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1)];
}

/** The events of a stream from one connection, each with what its JSON says, until it ends or breaks. */
async function* events(url, lastId, signal) {
  const headers = { Accept: "text/event-stream" };
  if (lastId !== null) headers["Last-Event-ID"] = lastId;
  const response = await request("GET", url, { headers, signal });
  const feed = eventParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    for (const event of feed(value)) yield { ...event, told: parsed(event.data) };
  }
}

function parsed(data) {
  try {
    return JSON.parse(data) ?? {};
  } catch {
    return { text: data };
  }
}

/**
 * A signal that also comes when nobody sees the page. A browser has few connections to one host for all its tabs, and
 * streams in tabs that nobody looks at would take them from the one that somebody does.
 */
function whileSeen(signal) {
  const seen = new AbortController();
  const check = () => {
    if (signal.aborted || document.hidden) seen.abort();
  };
  signal.addEventListener("abort", check, { signal: seen.signal });
  document.addEventListener("visibilitychange", check, { signal: seen.signal });
  check();
  return seen.signal;
}

/** A pause that ends early when it is no longer wanted. */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true }
    );
  });
}

/**
 * Does something again and again while the page is seen: at once, then `every` milliseconds after it was done.
 * Who is not let in does not ask again.
 */
async function repeatedly(work, every, signal) {
  while (!signal.aborted) {
    try {
      if (document.visibilityState === "visible") await work();
      uncomplain("refresh");
    } catch (error) {
      complain(error, "refresh");
      if (isShutOut(error)) return;
    }
    await pause(every, signal);
  }
}
