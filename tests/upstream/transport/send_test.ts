import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { OciError } from "../../../lib/oci/error.ts";
import { registryOf } from "../../../lib/oci/registry.ts";
import { Stats } from "../../../lib/telemetry/stats.ts";
import type { Connect, ConnectRequest } from "../../../lib/upstream/transport/connect.ts";
import {
  backoff,
  causeOf,
  createSend,
  sendNothing,
  type SendRequest,
} from "../../../lib/upstream/transport/send.ts";

const URL_ = new URL("https://registry.example/v2/?secret=1");
const registry = registryOf("corp", new URL("https://registry.example"));

/** A way out that behaves as `connect` says, at its `n`th call from 1. */
function sendWith(connect: (n: number, request: ConnectRequest) => Response | Promise<Response>) {
  const stats = new Stats();
  const slept: number[] = [];
  let calls = 0;
  const way: Connect = async (_url, request) => await connect(++calls, request);
  const sleep = (ms: number) => {
    slept.push(ms);
    return Promise.resolve();
  };
  const send = createSend({ connect: way, stats, sleep });
  return {
    stats,
    slept,
    get calls() {
      return calls;
    },
    send: (request: Partial<SendRequest> = {}) =>
      send(URL_, { registry, method: "GET", headers: new Headers(), ...request }),
  };
}

const reset = () => new TypeError("fetch failed", { cause: new Error("Connection reset by peer") });

/** Never answers; rejects as fetch does when it is aborted. */
function silence(_n: number, { signal }: ConnectRequest): Promise<Response> {
  return new Promise((_resolve, reject) =>
    signal.addEventListener("abort", () => reject(signal.reason))
  );
}

Deno.test("an answer of any status is an answer, and is not asked for again", async () => {
  for (const status of [200, 307, 401, 404, 429, 500, 503]) {
    const way = sendWith(() => new Response(null, { status }));
    const { response } = await way.send();
    assertEquals([response.status, way.calls], [status, 1]);
    assertEquals(way.stats.upstreamRequests.get(`corp ${status / 100 | 0}xx`), 1);
  }
});

Deno.test("a connection that fails is tried again, three times in all, a little later each time", async () => {
  const way = sendWith(() => {
    throw reset();
  });
  const error = await assertRejects(() => way.send(), OciError, "Cannot reach registry.example");
  assertEquals([error.code, error.status], ["UNAVAILABLE", 502]);
  assertEquals(error.detail, { host: "registry.example", cause: "Connection reset by peer" });
  assertEquals([way.calls, way.slept.length], [3, 2]);
  assert(way.slept[0]! < way.slept[1]! * 2);
  assertEquals(way.stats.upstreamErrors.get("corp network"), 3);
  assertEquals(way.stats.upstreamRetries.get("corp"), 2);
});

Deno.test("nobody learns of a connection that fails once", async () => {
  const way = sendWith((n) => {
    if (n === 1) throw reset();
    return new Response("here");
  });
  assertEquals(await (await way.send()).response.text(), "here");
});

Deno.test("a request with a body is sent once: it may have been heard", async () => {
  const way = sendWith(() => {
    throw reset();
  });
  await assertRejects(() => way.send({ method: "POST", body: "grant_type=password" }), OciError);
  assertEquals(way.calls, 1);
});

Deno.test("what the guard refuses stays refused", async () => {
  const refusal = new OciError("UNAVAILABLE", "Refusing to connect: a private address");
  const direct = sendWith(() => {
    throw refusal;
  });
  assertEquals(await assertRejects(() => direct.send(), OciError), refusal);
  assertEquals(direct.calls, 1);
});

Deno.test("an answer that never begins is 504, cut off, and not waited for a second time", async () => {
  let isAborted = false;
  const way = sendWith((n, request) => {
    request.signal.addEventListener("abort", () => void (isAborted = true));
    return silence(n, request);
  });
  const error = await assertRejects(() => way.send({ timeout: 20 }), OciError);
  assertEquals([error.status, way.calls, isAborted], [504, 1, true]);
  assertEquals(error.detail, { host: "registry.example", cause: "no answer within 0.02 s" });
  assertEquals(way.stats.upstreamErrors.get("corp timeout"), 1);
});

Deno.test("a body may take longer than the answer had to begin, until it is aborted", async () => {
  const signals: AbortSignal[] = [];
  const way = sendWith((_n, { signal }) => {
    signals.push(signal);
    return new Response(new ReadableStream());
  });
  const { abort } = await way.send({ timeout: 10 });
  await new Promise((resolve) => setTimeout(resolve, 30));
  assertEquals(signals[0]!.aborted, false);
  abort();
  assertEquals(signals[0]!.aborted, true);
});

Deno.test("who gives up gets his own reason, and upstream is not blamed for it", async () => {
  const way = sendWith(silence);
  const leaving = new AbortController();
  const reason = new Error("Nobody needs it any more");
  const sent = way.send({ signal: leaving.signal });
  leaving.abort(reason);
  assertEquals(await assertRejects(() => sent), reason);
  assertEquals([way.calls, way.stats.upstreamErrors.total], [1, 0]);
});

Deno.test("with OFFLINE every request fails at once, as upstream's trouble", async () => {
  const request: SendRequest = { registry, method: "GET", headers: new Headers() };
  const error = await assertRejects(() => sendNothing(URL_, request), OciError);
  assertEquals([error.status, error.code], [504, "UNAVAILABLE"]);
});

Deno.test("the pauses double up to five seconds, and are never the same for all who wait", () => {
  const attempt = fc.integer({ min: 1, max: 60 });
  fc.assert(fc.property(attempt, fc.integer({ min: 1, max: 1000 }), (n, base) => {
    const ceiling = Math.min(base * 2 ** (n - 1), 5000);
    const ms = backoff(n, base);
    assert(ceiling / 2 <= ms && ms <= ceiling, `${ms} is between half of ${ceiling} and it`);
  }));
  assert(new Set(Array.from({ length: 20 }, () => backoff(3))).size > 1);
});

const CAUSES: readonly [error: unknown, cause: string][] = [
  [reset(), "Connection reset by peer"],
  [new Error("outer", { cause: "text" }), "outer"],
  ["text", "text"],
  [undefined, "undefined"],
  [new Error("two\r\nlines"), "two lines"],
  [
    new Error(
      "error sending request for url (http://hub.example:80/v2/a/manifests/b): client error (Connect): tcp connect error: refused",
    ),
    "http://hub.example:80: tcp connect error: refused",
  ],
  [
    new Error("error sending request for url (https://s3.example/blob?X-Amz-Signature=secret)"),
    "error sending request for url (https://s3.example/blob)",
  ],
  [new Error("at http://a/b#secret, then https://c/d?secret"), "at http://a/b then https://c/d"],
];

Deno.test("a cause is the innermost message, in one line and without the query of any URL", () => {
  for (const [error, cause] of CAUSES) assertEquals(causeOf(error), cause);
  const query = fc.stringMatching(/^[\w%&=.-]{6,40}$/);
  fc.assert(fc.property(query, (query) => {
    const error = new Error(`cannot fetch https://storage.example/blob?x=${query} (os error 104)`);
    assert(!causeOf(error).includes(query));
  }));
});
