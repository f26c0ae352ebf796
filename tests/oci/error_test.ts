import { assertEquals, assertInstanceOf } from "@std/assert";
import fc from "fast-check";
import { OciError, type OciErrorCode, renderError } from "../../lib/oci/error.ts";

const STATUSES: Record<OciErrorCode, number> = {
  BLOB_UNKNOWN: 404,
  DENIED: 403,
  DIGEST_INVALID: 400,
  MANIFEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  RANGE_INVALID: 416,
  TOOMANYREQUESTS: 429,
  UNAUTHORIZED: 401,
  UNAVAILABLE: 502,
  UNKNOWN: 500,
  UNSUPPORTED: 405,
};

for (const [code, status] of Object.entries(STATUSES)) {
  Deno.test(`${code} answers ${status} unless told otherwise`, () => {
    assertEquals(new OciError(code as OciErrorCode, "No").status, status);
    assertEquals(new OciError(code as OciErrorCode, "No", { status: 504 }).status, 504);
  });
}

Deno.test("an error keeps its cause for the log and shows the client only the detail", async () => {
  const cause = new Error("secret");
  const error = new OciError("UNAVAILABLE", "Upstream is down", { cause, detail: { host: "a.b" } });
  assertInstanceOf(error, Error);
  assertEquals(error.name, "OciError");
  assertEquals(error.cause, cause);
  const response = renderError(error);
  assertEquals(response.status, 502);
  assertEquals(await response.json(), {
    errors: [{ code: "UNAVAILABLE", message: "Upstream is down", detail: { host: "a.b" } }],
  });
});

Deno.test("an error's answer has the API's headers and the error's own", () => {
  const headers = { "Retry-After": "7", "Content-Length": "1", "Cache-Control": "public" };
  const response = renderError(new OciError("TOOMANYREQUESTS", "Slow down", { headers }));
  assertEquals(Object.fromEntries(response.headers), {
    "cache-control": "no-store",
    "content-length": "61",
    "content-type": "application/json",
    "docker-distribution-api-version": "registry/2.0",
    "retry-after": "7",
  });
});

Deno.test("HEAD gets the same status and headers and no body", () => {
  const error = new OciError("MANIFEST_UNKNOWN", "No such manifest");
  const head = renderError(error, "HEAD");
  assertEquals(head.body, null);
  assertEquals(head.status, 404);
  assertEquals([...head.headers], [...renderError(error).headers]);
});

Deno.test("Content-Length is the body's length in bytes whatever the message", async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: "binary" }), fc.jsonValue(), async (message, detail) => {
      const response = renderError(new OciError("UNKNOWN", message, { detail }));
      const body = await response.bytes();
      assertEquals(response.headers.get("content-length"), String(body.byteLength));
    }),
  );
});
