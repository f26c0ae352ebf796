import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Fill, type FillOptions } from "../../../lib/cache/content/fill.ts";
import { OciError } from "../../../lib/oci/error.ts";
import type { Part } from "../../../lib/transforms/range.ts";
import { bodyOf, cut, drain, fedBody, sourceOf } from "../../support/bodies.ts";
import { digestOf, randomBytes, randomOf } from "../../support/content.ts";
import { type MemoryDraft, memoryDraft } from "../../support/draft.ts";

const BYTES = randomBytes(300_000, 1);
const SIZE = BYTES.byteLength;
const RESET = new Error("Connection reset");

const NOWHERE = sourceOf(() => new OciError("BLOB_UNKNOWN", "It must not be asked again"));

/** A fill of `BYTES`, and what it reported. */
function startFill(
  { draft = memoryDraft(), ...options }: Partial<Omit<FillOptions, "draft">> & {
    first: FillOptions["first"];
    draft?: MemoryDraft;
  },
) {
  const events: string[] = [];
  const fill = new Fill({
    digest: digestOf(BYTES),
    size: SIZE,
    draft,
    source: NOWHERE,
    idle: 60_000,
    sleep: () => Promise.resolve(),
    observer: {
      resumed: (offset) => events.push(`resumed at ${offset}`),
      mismatched: (reason) => events.push(`mismatched: ${reason}`),
      diskFailed: (cause) => events.push(`disk failed: ${(cause as Error).message ?? cause}`),
    },
    ...options,
  });
  return { fill, events, draft };
}

/** What one client gets. */
async function follow(fill: Fill, part?: Part) {
  const ends: [sent: number, complete: boolean][] = [];
  const got = await drain(fill.stream(part, (sent, complete) => ends.push([sent, complete])));
  assertEquals(ends, [[got.bytes.byteLength, got.error === undefined]]);
  return got;
}

/** Lets everything that can happen now happen. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}

for (const size of [SIZE, undefined]) {
  const what = size === undefined ? "of unknown length" : "of known length";

  Deno.test(`the last byte of a fill ${what} is withheld until upstream's end`, async () => {
    const fed = fedBody({ type: "bytes" });
    const { fill } = startFill({ first: fed.body, size });
    const reader = fill.stream(undefined, () => {}).getReader();
    let got = 0;
    const reading = (async () => {
      for (let chunk; (chunk = (await reader.read()).value);) got += chunk.byteLength;
    })();
    fed.push(BYTES);
    await settle();
    assertEquals(got, SIZE - 1);
    assertEquals(fill.received, SIZE);
    fed.end();
    await reading;
    assertEquals(got, SIZE);
    assertEquals(fill.state, "verified");
  });

  Deno.test(`no client of a fill ${what} gets the whole of wrong bytes`, async () => {
    const at = fc.integer({ min: 0, max: SIZE - 1 });
    await fc.assert(
      fc.asyncProperty(at, async (at) => {
        const wrong = BYTES.slice();
        wrong[at]! ^= 0x01;
        const { fill, events } = startFill({ first: bodyOf([wrong], { type: "bytes" }), size });
        const clients = await Promise.all([
          follow(fill),
          follow(fill, { start: 0, end: SIZE - 1 }),
          follow(fill, { start: SIZE - 1, end: SIZE - 1 }),
        ]);
        for (const { error } of clients) assertEquals(error?.name, "MismatchError");
        for (const [i, most] of [SIZE - 1, SIZE - 1, 0].entries()) {
          assert(clients[i]!.bytes.byteLength <= most);
        }
        assertEquals(fill.state, "failed");
        assertEquals(events, [
          `mismatched: Digest of the body is ${digestOf(wrong).slice("sha256:".length)}`,
        ]);
      }),
      { numRuns: 10 },
    );
  });
}

Deno.test("a body longer than upstream said breaks every client, and is reported", async () => {
  const { fill, events } = startFill({ first: bodyOf([BYTES, new Uint8Array(1)]) });
  const { bytes, error } = await follow(fill);
  assertEquals(error?.name, "MismatchError");
  assert(bytes.byteLength < SIZE);
  assertEquals(events, [`mismatched: Body is longer than ${SIZE} bytes`]);
});

Deno.test("a client gets upstream's first byte as soon as it is here", async () => {
  const fed = fedBody({ type: "bytes" });
  const { fill } = startFill({ first: fed.body });
  const reader = fill.stream(undefined, () => {}).getReader();
  fed.push(BYTES.slice(0, 1));
  assertEquals((await reader.read()).value, BYTES.slice(0, 1));
  fed.push(BYTES.slice(1, 10));
  assertEquals((await reader.read()).value, BYTES.slice(1, 10));
  fed.push(BYTES.slice(10));
  fed.end();
  assertEquals((await drain(releasedStream(reader))).bytes, BYTES.slice(10));
});

Deno.test("where the length is not known, a client is a byte behind upstream: any may be the last", async () => {
  const fed = fedBody({ type: "bytes" });
  const { fill } = startFill({ first: fed.body, size: undefined });
  const reader = fill.stream(undefined, () => {}).getReader();
  fed.push(BYTES.slice(0, 2));
  assertEquals((await reader.read()).value, BYTES.slice(0, 1));
  fed.push(BYTES.slice(2, 10));
  assertEquals((await reader.read()).value, BYTES.slice(1, 9));
  fed.push(BYTES.slice(10));
  fed.end();
  assertEquals((await drain(releasedStream(reader))).bytes, BYTES.slice(9));
});

function releasedStream(reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>) {
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  });
}

Deno.test("the last byte of a part is withheld until there is more, or all is right: it may be the last", async () => {
  const fed = fedBody({ type: "bytes" });
  // Upstream announces more than there is.
  const { fill } = startFill({ first: fed.body, size: 2 * SIZE });
  const reader = fill.stream({ start: 0, end: 999 }, () => {}).getReader();
  fed.push(BYTES.slice(0, 1000));
  assertEquals((await reader.read()).value, BYTES.slice(0, 999));
  const last = reader.read();
  await settle();
  fed.push(BYTES.slice(1000, 1001));
  assertEquals((await last).value, BYTES.slice(999, 1000));
  fill.abort();
  await fill.done;
});

Deno.test("clients of any part, from the start or in the middle, get exactly that part", async () => {
  const place = fc.integer({ min: 0, max: SIZE - 1 });
  const part = fc.tuple(place, place).map(([a, b]) => ({
    start: Math.min(a, b),
    end: Math.max(a, b),
  }));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.option(part, { nil: undefined }), { minLength: 1, maxLength: 8 }),
      fc.array(fc.integer({ min: 0, max: SIZE }), { maxLength: 12 }),
      fc.uniqueArray(fc.integer({ min: 1, max: SIZE - 1 }), { maxLength: 5 }),
      fc.boolean(),
      fc.nat(),
      async (parts, cuts, breaks, hasSize, seed) => {
        const random = randomOf(seed);
        breaks.sort((a, b) => a - b);
        const open = (offset: number) => {
          const stop = breaks.find((at) => at > offset) ?? SIZE;
          const bytes = BYTES.slice(offset, stop);
          const end = stop === SIZE ? "close" : RESET;
          return bodyOf(cut(bytes, cuts.filter((at) => at < bytes.byteLength)), {
            end,
            type: random() < 0.5 ? "bytes" : undefined,
          });
        };
        const { fill, events, draft } = startFill({
          first: open(0),
          source: sourceOf(open),
          size: hasSize ? SIZE : undefined,
        });
        const clients = parts.map(async (part) => {
          // Some come while it runs, some when it is done.
          for (let i = random() * 20; i > 0; i--) await Promise.resolve();
          return await follow(fill, part);
        });
        for (const [i, client] of (await Promise.all(clients)).entries()) {
          const { start, end } = parts[i] ?? { start: 0, end: SIZE };
          assertEquals(client, { bytes: BYTES.slice(start, end + 1) });
        }
        await fill.done;
        assertEquals(events, breaks.map((at) => `resumed at ${at}`));
        assertEquals(draft.written, BYTES);
        assertEquals([fill.state, fill.size, draft.open, fill.readers], ["verified", SIZE, 0, 0]);
      },
    ),
    { numRuns: 40 },
  );
});

Deno.test("a part beyond what is here comes when it is here, without waiting for the end", async () => {
  const fed = fedBody({ type: "bytes" });
  const { fill } = startFill({ first: fed.body });
  const part = follow(fill, { start: 1000, end: 1999 });
  fed.push(BYTES.slice(0, 1500));
  await settle();
  fed.push(BYTES.slice(1500, 2001));
  assertEquals(await part, { bytes: BYTES.slice(1000, 2000) });
  assertEquals(fill.state, "running");
  fed.push(BYTES.slice(2001));
  fed.end();
  await fill.done;
});

Deno.test("a fill goes on when all its clients have left, and closes what they had open", async () => {
  const fed = fedBody({ type: "bytes" });
  const { fill, draft } = startFill({ first: fed.body });
  const ends: [number, boolean][] = [];
  const reader = fill.stream(undefined, (...end) => ends.push(end)).getReader();
  fed.push(BYTES.slice(0, 1000));
  await fill.firstByte;
  fed.push(BYTES.slice(1000, 2000));
  await settle();
  await reader.read(); // of what is in the draft alone by now
  assertEquals([draft.open, fill.readers], [1, 1]);
  await reader.cancel();
  assertEquals([draft.open, fill.readers], [0, 0]);
  await fill.unread;
  fed.push(BYTES.slice(2000));
  fed.end();
  await fill.done;
  assertEquals(fill.state, "verified");
  assertEquals(draft.written, BYTES);
  assertEquals(ends, [[2000, false]]);
});

Deno.test("a client that leaves while its reader is being opened leaves nothing open", async () => {
  const gate = Promise.withResolvers<void>();
  const draft = memoryDraft({ beforeOpen: () => gate.promise });
  const { fill } = startFill({ first: bodyOf([BYTES]), draft });
  const reader = fill.stream(undefined, () => {}).getReader();
  const read = reader.read();
  await fill.done;
  await reader.cancel();
  gate.resolve();
  await read;
  await settle();
  assertEquals([draft.open, fill.readers], [0, 0]);
});

Deno.test("a client that reads nothing holds up neither the fill nor other clients", async () => {
  const { fill } = startFill({ first: bodyOf([BYTES]) });
  const idle = fill.stream(undefined, () => {});
  assertEquals((await follow(fill)).bytes, BYTES);
  assertEquals(fill.state, "verified");
  assertEquals((await drain(idle)).bytes, BYTES);
});

Deno.test("upstream waits for the disk: no more than two pieces and a read are in memory", async () => {
  const big = randomBytes(8_000_000, 3);
  const gate = Promise.withResolvers<void>();
  let given = 0;
  const first = new ReadableStream<Uint8Array<ArrayBuffer>>({
    type: "bytes",
    pull(controller) {
      const chunk = big.slice(given, given + 64_000);
      given += chunk.byteLength;
      controller.enqueue(chunk);
      if (given === big.byteLength) controller.close();
    },
  });
  const draft = memoryDraft({ beforeWrite: () => gate.promise });
  const { fill } = startFill({ first, draft, digest: digestOf(big), size: big.byteLength });
  await settle();
  assert(given > 0 && given < 2 * 2 ** 19 + 100_000, `${given} bytes were taken`);
  gate.resolve();
  await fill.done;
  assertEquals(draft.written, big);
});

Deno.test("a disk slower than upstream loses nothing", async () => {
  const draft = memoryDraft({ beforeWrite: settle });
  const { fill } = startFill({ first: bodyOf(cut(BYTES, [10, 100_000, 290_000])), draft });
  assertEquals((await follow(fill)).bytes, BYTES);
  assertEquals(draft.written, BYTES);
});

Deno.test("a fill tells when its last client has left", async () => {
  const { fill } = startFill({ first: bodyOf([BYTES]) });
  const clients = [fill.stream(undefined, () => {}), fill.stream(undefined, () => {})];
  await fill.done;
  let isUnread = false;
  const unread = fill.unread.then(() => isUnread = true);
  await clients[0]!.cancel();
  await settle();
  assertEquals(isUnread, false);
  await clients[1]!.cancel();
  await unread;
});

Deno.test("clients that keep up are served from memory, however many, and the draft is not read", async () => {
  const fed = fedBody({ type: "bytes" });
  const { fill, draft } = startFill({ first: fed.body });
  const clients = Array.from({ length: 5 }, () => follow(fill));
  for (let at = 0; at < SIZE; at += 30_000) {
    fed.push(BYTES.slice(at, at + 30_000));
    await settle();
  }
  fed.end();
  for (const { bytes } of await Promise.all(clients)) assertEquals(bytes, BYTES);
  assertEquals(draft.reads, 0);
});

Deno.test("a client that leaves while it is sent from memory does not see others' bytes in it", async () => {
  const fed = fedBody({ type: "bytes" });
  const { fill } = startFill({ first: fed.body });
  const leaver = fill.source(undefined, () => {});
  const buffer = new Uint8Array(2 ** 16);
  const reading = leaver.read(buffer);
  fed.push(BYTES.slice(0, 1000));
  const sent = await reading;
  leaver.end(0); // the connection may still be writing what it was given
  const other = follow(fill);
  for (let at = 1000; at < SIZE; at += 1000) {
    fed.push(BYTES.slice(at, at + 1000));
    if (at < 50_000) await settle();
  }
  fed.end();
  assertEquals((await other).bytes, BYTES);
  assertEquals(sent, BYTES.slice(0, 1000));
});

Deno.test("clients at the same place share a read", async () => {
  const { fill, draft } = startFill({ first: bodyOf(cut(BYTES, [100_000, 200_000])) });
  await fill.done;
  const clients = await Promise.all(Array.from({ length: 20 }, () => follow(fill)));
  for (const { bytes } of clients) assertEquals(bytes, BYTES);
  const alone = startFill({ first: bodyOf(cut(BYTES, [100_000, 200_000])) });
  await alone.fill.done;
  await follow(alone.fill);
  assert(alone.draft.reads > 0);
  assert(draft.reads < 2 * alone.draft.reads, `${draft.reads} reads, ${alone.draft.reads} alone`);
});

Deno.test("a client that leaves in the middle of a shared read takes nobody with it", async () => {
  const gate = Promise.withResolvers<void>();
  const draft = memoryDraft({ beforeRead: () => gate.promise });
  const { fill } = startFill({ first: bodyOf([BYTES]), draft });
  await fill.done;
  const leaver = fill.stream(undefined, () => {}).getReader();
  const reading = leaver.read();
  const others = [follow(fill), follow(fill)];
  await settle();
  await leaver.cancel();
  gate.resolve();
  for (const { bytes, error } of await Promise.all(others)) {
    assertEquals(error, undefined);
    assertEquals(bytes, BYTES);
  }
  await reading;
});

Deno.test("when the disk fails every client goes on from upstream, and gets only right bytes", async () => {
  const at = fc.integer({ min: 0, max: SIZE - 1 });
  await fc.assert(
    fc.asyncProperty(at, fc.boolean(), fc.boolean(), async (room, hasSize, isWrong) => {
      const rest = BYTES.slice();
      if (isWrong) rest[SIZE - 1]! ^= 0x01;
      const source = sourceOf((offset) => bodyOf(cut(rest.slice(offset), [1, 1000])));
      const { fill, events, draft } = startFill({
        first: bodyOf(cut(BYTES, [1, 99_999, 200_000])),
        source,
        draft: memoryDraft({ room }),
        size: hasSize ? SIZE : undefined,
      });
      const early = [follow(fill), follow(fill, { start: 10, end: SIZE - 1 })];
      await fill.done;
      assertEquals([fill.state, events], ["detached", ["disk failed: No space left on device"]]);
      const late = follow(fill, { start: 5, end: SIZE - 1 });
      const clients = await Promise.all([...early, late]);
      for (const [i, { bytes, error }] of clients.entries()) {
        const start = [0, 10, 5][i]!;
        if (isWrong) {
          assertEquals(error?.name, "MismatchError");
          assert(bytes.byteLength < SIZE - start);
        } else {
          assertEquals(error, undefined);
          assertEquals(bytes, BYTES.slice(start));
        }
      }
      // Each asked upstream for what the draft did not get.
      assertEquals(source.offsets, Array(3).fill(draft.written.byteLength));
    }),
    { numRuns: 30 },
  );
});

Deno.test("when what was written cannot be read, its reader goes on from upstream and gets only right bytes", async () => {
  for (const isWrong of [false, true]) {
    const draft = memoryDraft();
    const open = draft.reader.bind(draft);
    let reads = 0;
    draft.reader = async () => {
      const reader = await open();
      const read = reader.read.bind(reader);
      reader.read = (at, buffer) =>
        ++reads > 1
          ? Promise.reject(new Error("It breaks off"))
          : read(at, buffer.subarray(0, 1_000));
      return reader;
    };
    const again = BYTES.slice();
    if (isWrong) again[5]! ^= 1;
    const source = sourceOf((offset) => bodyOf(cut(again.slice(offset), [1, 1000])));
    const { fill } = startFill({ first: bodyOf(cut(BYTES, [100_000, 200_000])), source, draft });
    await fill.done;
    assertEquals(fill.state, "verified");
    reads = 0;
    const { bytes, error } = await follow(fill);
    assertEquals([error?.name, source.offsets], [isWrong ? "MismatchError" : undefined, [0]]);
    if (!isWrong) assertEquals(bytes, BYTES);
  }
});

Deno.test("a client that had wrong bytes of a fill is never given right ones after them", async () => {
  const wrong = BYTES.slice();
  wrong[10]! ^= 1;
  for (const isRunning of [true, false]) {
    for (const isWrong of [true, false]) {
      const unreadable: unknown[] = [];
      const draft = memoryDraft();
      draft.reader = () => Promise.reject(new Deno.errors.NotFound("It has been removed"));
      const source = sourceOf((offset) => bodyOf(cut(BYTES.slice(offset), [70_000, 150_000])));
      const fed = fedBody({ type: "bytes" });
      const { fill } = startFill({
        first: fed.body,
        source,
        draft,
        observer: { unreadable: (error) => unreadable.push(error) },
      });
      const reader = fill.stream(undefined, () => {}).getReader();
      fed.push((isWrong ? wrong : BYTES).slice(0, 100_000));
      const first = (await reader.read()).value!;
      assert(first.byteLength > 10 && first.byteLength < 100_000);
      fed.push((isWrong ? wrong : BYTES).slice(100_000));
      await settle(); // what the client has not read is not in memory any more
      if (!isRunning) {
        fed.end();
        await fill.done;
      }
      const { bytes, error } = await drain(releasedStream(reader));
      if (isRunning) fed.end();
      const isFailed = isWrong && !isRunning;
      // A download that failed is not asked for again, and no trouble of the disk's.
      assertEquals([unreadable.length, source.offsets.length], isFailed ? [0, 0] : [1, 1]);
      assertEquals(error?.name, isWrong ? "MismatchError" : undefined);
      const length = first.byteLength + bytes.byteLength;
      assert(isWrong ? length < SIZE : length === SIZE, `${length} bytes`);
      await fill.done;
    }
  }
});

Deno.test("a client of a fill whose disk failed does not notice that upstream breaks as well", async () => {
  const source = sourceOf((offset, n) =>
    bodyOf([BYTES.slice(offset, n === 1 ? 200_000 : SIZE)], { end: n === 1 ? RESET : "close" })
  );
  const { fill } = startFill({
    first: bodyOf(cut(BYTES, [100_000])),
    source,
    draft: memoryDraft({ room: 150_000 }),
  });
  assertEquals((await follow(fill)).bytes, BYTES);
  assertEquals(source.offsets, [100_000, 200_000]);
});

Deno.test("a fill of unknown length asks for room as it grows, and without goes on uncached", async () => {
  let asked = 0;
  const { fill, events } = startFill({
    first: bodyOf(cut(BYTES, [100_000, 200_000])),
    source: sourceOf((offset) => bodyOf([BYTES.slice(offset)])),
    size: undefined,
    grow: (bytes) => Promise.resolve((asked += bytes) < 250_000),
  });
  assertEquals((await follow(fill)).bytes, BYTES);
  assertEquals([fill.state, events], ["detached", ["disk failed: no room"]]);
  assertEquals(fill.received, 200_000);
});

Deno.test("a fill of known length does not ask for room again", async () => {
  const { fill } = startFill({ first: bodyOf([BYTES]), grow: () => Promise.resolve(false) });
  await fill.done;
  assertEquals(fill.state, "verified");
});

Deno.test("when upstream is gone for good every client's connection breaks, with the cause", async () => {
  const { fill, events } = startFill({
    first: bodyOf([BYTES.slice(0, 1000)], { end: RESET }),
    source: sourceOf(() => new OciError("UNAVAILABLE", "Cannot reach it")),
  });
  const { bytes, error } = await follow(fill);
  assertEquals(error?.message, "Cannot reach it");
  assertEquals(bytes, BYTES.slice(0, 1000));
  assertEquals(fill.state, "failed");
  assertEquals(events.length, 6);
  assertEquals((await follow(fill)).bytes.byteLength, 1000);
});

Deno.test("the empty blob is a blob", async () => {
  const { fill } = startFill({ first: bodyOf([]), digest: digestOf(""), size: 0 });
  assertEquals((await follow(fill)).bytes.byteLength, 0);
  await fill.done;
  assertEquals(fill.state, "verified");
});
