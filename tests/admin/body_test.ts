import { assertEquals, assertRejects } from "@std/assert";
import { readJson } from "../../lib/admin/body.ts";
import { OciError } from "../../lib/oci/error.ts";

const JSON_TYPE = { "content-type": "application/json; charset=utf-8" };

function post(body: BodyInit | null, headers: Record<string, string> = JSON_TYPE): Request {
  return new Request("http://127.0.0.1/", { method: "POST", body, headers });
}

Deno.test("an operator's body is one JSON object", async () => {
  assertEquals(await readJson(post('{"a":"\u00e4"}')), { a: "ä" });
  const table: [Request, number][] = [
    [post("{}", { "content-type": "text/plain" }), 415],
    [post(null), 400],
    [post("[]"), 400],
    [post("null"), 400],
    [post("{"), 400],
    [post("{}", { ...JSON_TYPE, "content-length": "70000" }), 413],
  ];
  for (const [request, status] of table) {
    assertEquals((await assertRejects(() => readJson(request), OciError)).status, status);
  }
});

Deno.test("an operator's body is read no further than 64 KiB, whatever its length says", async () => {
  let sent = 0;
  let isCancelled = false;
  const endless = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller) {
      sent += 16_384;
      controller.enqueue(new Uint8Array(16_384).fill(0x20));
    },
    cancel: () => void (isCancelled = true),
  });
  const error = await assertRejects(() => readJson(post(endless)), OciError);
  assertEquals([error.status, isCancelled, sent <= 6 * 16_384], [413, true, true]);
});

Deno.test("reading an operator's body stops after its timeout", async () => {
  let isCancelled = false;
  const silent = new ReadableStream<Uint8Array<ArrayBuffer>>({
    start: (controller) => controller.enqueue(new TextEncoder().encode("{")),
    cancel: () => void (isCancelled = true),
  });
  const error = await assertRejects(() => readJson(post(silent), { timeout: 20 }), OciError);
  assertEquals([error.status, isCancelled], [408, true]);
});
