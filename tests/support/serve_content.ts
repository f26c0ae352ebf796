/**
 * How a static file server answers: ranges, conditions, lengths.
 *
 * @module
 */
import type { Content } from "./content.ts";
import type { ServerReply, ServerRequest } from "./http_server.ts";

/** Answers GET or HEAD for a content: 200, 206 with Content-Range, 304 for If-None-Match, or 416. */
export function serveContent(
  request: ServerRequest,
  content: Content,
  options: { headers: readonly (readonly [string, string])[]; etag?: string },
): ServerReply {
  const { etag } = options;
  const headers = [...options.headers, ["accept-ranges", "bytes"] as const];
  if (etag) headers.push(["etag", etag]);
  const { size } = content;
  if (etag && request.headers.get("if-none-match") === etag) return { status: 304, headers };
  const ifRange = request.headers.get("if-range");
  const usable = ifRange === null || ifRange === etag;
  const range = usable ? parseRange(request.headers.get("range"), size) : undefined;
  if (range === "unsatisfiable") {
    return { status: 416, headers: [...headers, ["content-range", `bytes */${size}`]] };
  }
  if (!range) return { status: 200, headers, body: content };
  const [start, end] = range;
  return {
    status: 206,
    headers: [...headers, ["content-range", `bytes ${start}-${end - 1}/${size}`]],
    body: content,
    part: range,
  };
}

/** `[start, end)` of a single range; `undefined` for none, several, or a malformed one. */
export function parseRange(
  header: string | null,
  size: number,
): [number, number] | "unsatisfiable" | undefined {
  const match = header?.match(/^bytes=(\d*)-(\d*)$/);
  if (!match || (!match[1] && !match[2])) return undefined;
  if (!match[1]) {
    const last = Number(match[2]);
    return last === 0 || size === 0 ? "unsatisfiable" : [Math.max(0, size - last), size];
  }
  const start = Number(match[1]);
  if (match[2] && Number(match[2]) < start) return undefined;
  if (start >= size) return "unsatisfiable";
  return [start, match[2] ? Math.min(size, Number(match[2]) + 1) : size];
}

/** The same request, as a server sees it that knows no ranges. */
export function withoutRange(request: ServerRequest): ServerRequest {
  const headers = new Headers(request.headers);
  headers.delete("range");
  return { ...request, headers };
}
