/**
 * The body of an operator's request, bounded in bytes and time.
 *
 * @module
 */
import { OciError } from "../oci/error.ts";
import { startTimeout } from "../util/timeout.ts";

/** Larger bodies are no commands, bytes. */
const MAX_BODY = 64 * 1024;
/** How long a body may take in all, ms. */
const BODY_TIMEOUT = 10_000;

/**
 * The JSON object that a request brings. Throws an `OciError`: 415 for another type, 413 beyond 64 KiB, 408 for one
 * that takes longer than `timeout` ms, 400 for what is no object.
 */
export async function readJson(
  request: Request,
  { timeout = BODY_TIMEOUT }: { timeout?: number } = {},
): Promise<Record<string, unknown>> {
  const type = (request.headers.get("content-type") ?? "").split(";", 1)[0]!.trim().toLowerCase();
  if (type !== "application/json") {
    throw new OciError("NAME_INVALID", "Expected application/json", { status: 415 });
  }
  const text = await readText(request, timeout);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new OciError("NAME_INVALID", "The body is no JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new OciError("NAME_INVALID", "The body is no JSON object");
  }
  return value as Record<string, unknown>;
}

/** The body as text. What is beyond the limits is not taken off the connection. */
async function readText({ headers, body }: Request, timeout: number): Promise<string> {
  if (Number(headers.get("content-length") ?? 0) > MAX_BODY) throw tooLarge();
  if (!body) return "";
  const reader = body.getReader();
  let isLate = false;
  const stop = startTimeout(timeout, () => {
    isLate = true;
    reader.cancel().catch(() => {}); // the client may have left
  });
  const decoder = new TextDecoder();
  try {
    let text = "";
    for (let length = 0;;) {
      const { done, value } = await reader.read();
      if (isLate) throw tooSlow();
      if (done) return text + decoder.decode();
      length += value.byteLength;
      if (length > MAX_BODY) throw tooLarge();
      text += decoder.decode(value, { stream: true });
    }
  } catch (error) {
    if (isLate) throw tooSlow();
    if (error instanceof OciError) throw error;
    throw new OciError("NAME_INVALID", "The body was cut short");
  } finally {
    stop();
    reader.cancel().catch(() => {}); // nothing more of it is wanted
  }
}

function tooLarge(): OciError {
  return new OciError("NAME_INVALID", "The body is too large", { status: 413 });
}

function tooSlow(): OciError {
  return new OciError("NAME_INVALID", "The body took too long", { status: 408 });
}
