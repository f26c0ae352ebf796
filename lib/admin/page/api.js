/**
 * The operator's API: JSON, and server-sent events read through `fetch`, which unlike `EventSource` tells
 * a refusal from an outage and can post.
 *
 * @module
 */

/** An answer other than 2xx, or none: `status` is 0 then. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Called at each 401. */
let onUnauthorized = () => {};

/** Sets what happens when the API wants a token. */
export function whenUnauthorized(listener) {
  onUnauthorized = listener;
}

/** A path with its query; undefined and empty values are left out. */
export function withQuery(path, values) {
  const query = new URLSearchParams(
    Object.entries(values).filter(([, value]) => value !== undefined && value !== ""),
  );
  return query.size > 0 ? `${path}?${query}` : path;
}

/** What `GET path` answers. Throws an `ApiError`; the signal's reason when aborted. */
export async function get(path, { signal } = {}) {
  return await readJson(await request(path, { signal }));
}

/** What `method path` answers; undefined without a body. */
export async function send(method, path, { body, signal } = {}) {
  return await readJson(await request(path, { method, body, signal }));
}

/** Shows the token, for a cookie. Throws an `ApiError`: 401 for a wrong one. */
export async function login(token) {
  await request("api/login", { method: "POST", token });
}

/**
 * The events of a stream: `{ event, data }`, the data parsed. Without anything for `silence` ms (never, by
 * default) it throws an `ApiError`.
 */
export async function* events(path, { method = "GET", body, signal, silence } = {}) {
  const stop = new AbortController();
  const either = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  let timer;
  const watch = () => {
    clearTimeout(timer);
    if (silence) timer = setTimeout(() => stop.abort(new ApiError("Silence", 0)), silence);
  };
  watch();
  try {
    const response = await request(path, { method, body, signal: either });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (true) {
      const { done, value } = await reader.read().catch((error) => {
        if (either.aborted) throw either.reason;
        throw new ApiError(String(error.message ?? error), 0);
      });
      if (done) return;
      watch();
      text += value.replaceAll("\r\n", "\n");
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
        const event = readEvent(text.slice(0, end));
        if (event) yield event;
      }
    }
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

function readEvent(block) {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5));
  }
  return data.length > 0 ? { event, data: JSON.parse(data.join("\n")) } : undefined;
}

async function request(path, { method = "GET", body, signal, token }) {
  const headers = {
    ...body !== undefined && { "content-type": "application/json" },
    ...token !== undefined && { authorization: `Bearer ${token}` },
  };
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new ApiError(String(error.message ?? error), 0);
  }
  if (response.ok) return response;
  const text = await response.text().catch(() => "");
  // A wrong token at the login itself is the form's to tell.
  if (response.status === 401 && token === undefined) onUnauthorized();
  throw new ApiError(messageOf(text) ?? `HTTP ${response.status}`, response.status);
}

async function readJson(response) {
  const text = await response.text();
  return text === "" ? undefined : JSON.parse(text);
}

function messageOf(text) {
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : undefined;
  } catch {
    return undefined;
  }
}
