import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { readEvents } from "../../lib/commands/event_stream.ts";

async function* cut(bytes: Uint8Array, at: readonly number[]) {
  let from = 0;
  for (const to of [...at.filter((n) => n <= bytes.length).sort((a, b) => a - b), bytes.length]) {
    yield bytes.subarray(from, to);
    from = to;
  }
}

const read = (text: string, at: readonly number[] = []) =>
  Array.fromAsync(readEvents(cut(new TextEncoder().encode(text), at)));

const TABLE: readonly [string, string, [string, string][]][] = [
  ["a named event", "event: progress\ndata: 1\n\n", [["progress", "1"]]],
  ["one without a name", "data: 1\n\n", [["message", "1"]]],
  ["lines that end as on Windows", "event: a\r\ndata: 1\r\n\r\n", [["a", "1"]]],
  ["data on several lines", "data: 1\ndata: 2\n\n", [["message", "1\n2"]]],
  ["a comment", ": ping\n\ndata:x\n\n", [["message", "x"]]],
  ["one without data", "event: a\n\n", []],
  ["one that is cut off", "data: 1\n\ndata: 2\n", [["message", "1"]]],
  ["a name that is not kept for the next", "event: a\ndata: 1\n\ndata: 2\n\n", [
    ["a", "1"],
    ["message", "2"],
  ]],
];

for (const [what, text, expected] of TABLE) {
  Deno.test(`events are read: ${what}`, async () => {
    assertEquals((await read(text)).map(({ event, data }) => [event, data]), expected);
  });
}

Deno.test("chunk boundaries do not affect the events", async () => {
  const text = "event: é\ndata: ü漢\n\n: x\ndata: 2\r\n\r\ndata: 3\n\n";
  const expected = await read(text);
  const cuts = fc.array(fc.integer({ min: 0, max: text.length + 8 }));
  await fc.assert(fc.asyncProperty(cuts, async (at) => {
    assertEquals(await read(text, at), expected);
  }));
});

Deno.test("events written are read back the same, and no bytes make the reader throw", async () => {
  const line = fc.string({ unit: "binary" }).filter((text) => !/[\r\n]/.test(text));
  const written = fc.record({ event: line.filter((name) => name !== ""), data: fc.array(line) });
  await fc.assert(fc.asyncProperty(fc.array(written), async (events) => {
    const text = events.map(({ event, data }) =>
      `event: ${event}\n${data.map((one) => `data: ${one}\n`).join("")}\n`
    ).join("");
    const expected = events.filter(({ data }) => data.length > 0)
      .map(({ event, data }) => ({ event, data: data.join("\n").toWellFormed() }));
    const found = await read(text);
    assertEquals(found.map(({ data }) => data), expected.map(({ data }) => data));
    assertEquals(
      found.map(({ event }) => event),
      expected.map(({ event }) => event.toWellFormed()),
    );
  }));
  await fc.assert(fc.asyncProperty(fc.array(fc.uint8Array()), async (chunks) => {
    const stream = (async function* () {
      yield* chunks;
    })();
    for await (const { event, data } of readEvents(stream)) {
      assert(event !== "" && !/\n/.test(event) && typeof data === "string");
    }
  }));
});
