import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { OciError } from "../../lib/oci/error.ts";
import type { TargetKind } from "../../lib/transforms/route.ts";
import {
  isUpstreamTrouble,
  notFound,
  retryAfter,
  upstreamFailure,
} from "../../lib/upstream/failure.ts";

function failing(status: number, body: BodyInit | null = null, headers: HeadersInit = {}) {
  return upstreamFailure(new Response(body, { status, headers }), {
    kind: "manifest",
    host: "registry.example",
  });
}

const errorsOf = (message: unknown, detail?: unknown) =>
  JSON.stringify({ errors: [{ code: "SOMETHING", message, detail }] });

const TABLE: readonly [upstream: number, status: number, code: string][] = [
  [400, 400, "UNKNOWN"],
  [401, 401, "UNAUTHORIZED"],
  [403, 403, "DENIED"],
  [404, 404, "MANIFEST_UNKNOWN"],
  [405, 405, "UNSUPPORTED"],
  [416, 416, "RANGE_INVALID"],
  [418, 418, "UNKNOWN"],
  [429, 429, "TOOMANYREQUESTS"],
  [500, 502, "UNAVAILABLE"],
  [502, 502, "UNAVAILABLE"],
  [503, 502, "UNAVAILABLE"],
  [504, 502, "UNAVAILABLE"],
  [304, 502, "UNAVAILABLE"],
];

for (const [upstream, status, code] of TABLE) {
  Deno.test(`upstream's ${upstream} is ${status} ${code} to the client`, async () => {
    const error = await failing(upstream);
    assertEquals([error.status, error.code], [status, code]);
    if (status === 502) {
      assertEquals(error.detail, {
        host: "registry.example",
        status: upstream,
        message: undefined,
      });
    }
  });
}

const KINDS: Readonly<Record<TargetKind | "catalog", string>> = {
  manifest: "MANIFEST_UNKNOWN",
  blob: "BLOB_UNKNOWN",
  tags: "NAME_UNKNOWN",
  referrers: "MANIFEST_UNKNOWN",
  catalog: "NAME_UNKNOWN",
};

Deno.test("404 says what it is that does not exist", () => {
  for (const [kind, code] of Object.entries(KINDS)) {
    const error = notFound(kind as TargetKind, "Not here");
    assertEquals([error.code, error.status, error.message], [code, 404, "Not here"]);
  }
});

Deno.test("upstream's own words are passed on where they are the specification's", async () => {
  const error = await failing(403, errorsOf("Pull access denied", { repository: "a" }));
  assertEquals([error.message, error.detail], ["Pull access denied", { repository: "a" }]);
  const down = await failing(503, errorsOf("Maintenance"));
  assertEquals((down.detail as { message: string }).message, "Maintenance");
});

const OTHER_BODIES: Readonly<Record<string, BodyInit>> = {
  "HTML": "<html>Forbidden</html>",
  "no message": errorsOf(undefined),
  "a message that is no text": errorsOf({ html: "<b>" }),
  "no list of errors": `{"errors":{}}`,
  "null": "null",
  "more than an error needs": errorsOf("x".repeat(70_000)),
  "a body that breaks": new ReadableStream({
    pull: (controller) => controller.error(new Error("Connection reset")),
  }),
};

for (const [name, body] of Object.entries(OTHER_BODIES)) {
  Deno.test(`with ${name} as its body an error is told by its status alone`, async () => {
    const error = await failing(403, body);
    assertEquals([error.status, error.code, error.message], [403, "DENIED", "Access denied"]);
  });
}

Deno.test("no status and no body of upstream's makes it throw, and none is a success", async () => {
  const status = fc.integer({ min: 300, max: 599 });
  await fc.assert(fc.asyncProperty(status, fc.oneof(fc.string(), fc.json()), async (s, body) => {
    const error = await failing(s, s === 304 ? null : body);
    assert(error instanceof OciError);
    assert(error.status >= 400 && error.status < 600, `${s} became ${error.status}`);
  }));
});

const RETRY_AFTER: readonly [said: string | null, told: string][] = [
  ["17", "17"],
  [" 17 ", "17"],
  ["Wed, 21 Oct 2099 07:28:00 GMT", "Wed, 21 Oct 2099 07:28:00 GMT"],
  [null, "60"],
  ["", "60"],
  ["soon", "60"],
  ["-1", "60"],
  ["1.5", "60"],
  ["99999999999999999999", "60"],
  ["Wed, nonsense", "60"],
  ["2099-10-21", "60"],
];

Deno.test("Retry-After is upstream's where clients can read it, else a minute", async () => {
  for (const [said, told] of RETRY_AFTER) {
    const headers = new Headers(said === null ? {} : { "retry-after": said });
    assertEquals(retryAfter(headers), told, String(said));
    assertEquals((await failing(429, null, headers)).headers, { "retry-after": told });
  }
});

Deno.test("whatever Retry-After says, what is told is seconds or a date that clients can read", () => {
  const text = fc.oneof(
    fc.string({ unit: fc.integer({ min: 0x20, max: 0x7e }).map((n) => String.fromCharCode(n)) }),
    fc.nat().map(String),
    fc.date({ noInvalidDate: true }).map((date) => date.toUTCString()),
  );
  fc.assert(fc.property(text, (said) => {
    const told = retryAfter(new Headers({ "retry-after": said }));
    assert(told === said.trim() || told === "60");
    assert(/^\d{1,9}$/.test(told) || !Number.isNaN(Date.parse(told)), told);
  }));
});

Deno.test("trouble is what a cached answer is better than: 429, 502 and 504, and no refusal", () => {
  const statuses = [400, 401, 403, 404, 416, 429, 500, 502, 503, 504];
  const trouble = statuses.filter((status) =>
    isUpstreamTrouble(new OciError("UNKNOWN", "Something", { status }))
  );
  assertEquals(trouble, [429, 502, 503, 504]);
  assert(!isUpstreamTrouble(new TypeError("a mistake of ours")));
});
