/**
 * Reads the body of an operator's request, bounded in bytes and time.
 *
 * @module
 */
import { OciError } from "../oci/error.ts";
import { startTimeout } from "../util/timeout.ts";

/** Maximum size of a body, in bytes. */
const MAX_BODY = 64 * 1024;
/** Maximum time to read a body, in ms. */
const BODY_TIMEOUT = 10_000;

/**
 * Returns the JSON object in a request's body. Throws an `OciError`: 415 for another media type, 413 for
 * more than 64 KiB, 408 if reading takes longer than `timeout` ms, 400 if the body is not a JSON object.
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
    throw new OciError("NAME_INVALID", "The body is not JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new OciError("NAME_INVALID", "The body is not a JSON object");
  }
  return value as Record<string, unknown>;
}

/** Returns the body as text. Stops reading at the limits. */
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
    reader.cancel().catch(() => {}); // the rest is not needed
  }
}

function tooLarge(): OciError {
  return new OciError("NAME_INVALID", "The body is too large", { status: 413 });
}

function tooSlow(): OciError {
  return new OciError("NAME_INVALID", "The body took too long", { status: 408 });
}
