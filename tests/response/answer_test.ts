import { assertEquals } from "@std/assert";
import { type Body, heldBody } from "../../lib/response/answer.ts";
import { digestOf } from "../../lib/oci/digest.ts";

const bytesOf = (fill: number) => new Uint8Array(100_000).fill(fill);

/** The first byte of each body, all of them held until the last was read. */
async function firstBytes(bodies: readonly Body[]): Promise<(number | undefined)[]> {
  const sources = bodies.map((body) => body.source!(undefined, () => {}));
  const firsts = await Promise.all(sources.map((source) => source.read(new Uint8Array(10))));
  for (const source of sources) source.end(0);
  return firsts.map((chunk) => chunk?.[0]);
}

Deno.test("two contents that registries call by one digest which cannot be computed here are never mixed up", async () => {
  const digest = `sha384:${"a".repeat(96)}`;
  const bodies = [1, 2].map((fill) => heldBody(digest, bytesOf(fill)));
  assertEquals(await firstBytes(bodies), [1, 2]);
});

Deno.test("answers with the same large content share its memory", async () => {
  const [a, b] = [bytesOf(3), bytesOf(3)];
  const digest = digestOf(a);
  const bodies = [heldBody(digest, a), heldBody(digest, b)];
  b.fill(4); // as nobody would: it shows whose bytes are sent
  assertEquals(await firstBytes(bodies), [3, 3]);
});
