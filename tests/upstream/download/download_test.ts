import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { OciError } from "../../../lib/oci/error.ts";
import {
  Download,
  type DownloadOptions,
  MismatchError,
} from "../../../lib/upstream/download/download.ts";
import { bodyOf, cut, fedBody, oneMemory, sourceOf } from "../../support/bodies.ts";
import { randomBytes } from "../../support/content.ts";

const RESET = new Error("Connection reset");
const BYTES = randomBytes(50_000, 1);

/** What a download gives, where it was taken up again, and the pauses before that. */
async function run(options: Partial<DownloadOptions> & Pick<DownloadOptions, "source">) {
  const resumes: [offset: number, cause: string][] = [];
  const pauses: number[] = [];
  const download = new Download({
    idle: 60_000,
    onResume: (offset, cause) => resumes.push([offset, cause]),
    sleep(ms) {
      pauses.push(ms);
      return Promise.resolve();
    },
    ...options,
  });
  const bytes: number[] = [];
  let error: Error | undefined;
  try {
    for (let chunk; (chunk = await download.read());) for (const byte of chunk) bytes.push(byte);
  } catch (thrown) {
    error = thrown as Error;
  }
  return { bytes: new Uint8Array(bytes), error, resumes, pauses };
}

Deno.test("a download that breaks anywhere, any number of times, gives every byte once", async () => {
  const property = fc.asyncProperty(
    fc.uniqueArray(fc.integer({ min: 1, max: BYTES.byteLength - 1 }), { maxLength: 20 }),
    fc.array(fc.integer({ min: 0, max: BYTES.byteLength }), { maxLength: 10 }),
    fc.boolean(),
    fc.boolean(),
    fc.constantFrom("bytes" as const, undefined),
    async (breaks, cuts, hasSize, hasMemory, type) => {
      breaks.sort((a, b) => a - b);
      const source = sourceOf((offset) => {
        const stop = breaks.find((at) => at > offset) ?? BYTES.byteLength;
        const part = BYTES.slice(offset, stop);
        const end = stop === BYTES.byteLength ? "close" : RESET;
        return bodyOf(cut(part, cuts.filter((at) => at < part.byteLength)), { end, type });
      });
      const size = hasSize ? BYTES.byteLength : undefined;
      const memory = hasMemory ? oneMemory(10_000) : undefined;
      const { bytes, error, resumes } = await run({ source, size, memory });
      assertEquals(error, undefined);
      assertEquals(bytes, BYTES);
      assertEquals(resumes, breaks.map((at) => [at, "Connection reset"]));
      assertEquals(source.offsets, [0, ...breaks]);
    },
  );
  await fc.assert(property, { numRuns: 40 });
});

Deno.test("a body that ends before its size is a broken one", async () => {
  const source = sourceOf((offset) => bodyOf([BYTES.slice(offset)]));
  const first = bodyOf([BYTES.slice(0, 100)]);
  const { bytes, resumes } = await run({ source, first, size: BYTES.byteLength });
  assertEquals(bytes, BYTES);
  assertEquals(resumes, [[100, "Body ended after 100 of 50000 bytes"]]);
});

Deno.test("a body that stands still is cut, and taken up where it stood", async () => {
  const source = sourceOf((offset) => bodyOf([BYTES.slice(offset)]));
  const first = bodyOf([BYTES.slice(0, 100)], { end: "stall" });
  const { bytes, resumes } = await run({ source, first, size: BYTES.byteLength, idle: 20 });
  assertEquals(bytes, BYTES);
  assertEquals(resumes, [[100, "No data for 0.02 s"]]);
});

Deno.test("a connection that breaks after the last byte of a known size is no trouble", async () => {
  for (const end of ["stall", RESET] as const) {
    const source = sourceOf(() => new Error("It must not be asked again"));
    const first = bodyOf([BYTES], { end });
    const { bytes, error } = await run({ source, first, size: BYTES.byteLength, idle: 20 });
    assertEquals(error, undefined);
    assertEquals(bytes, BYTES);
    assertEquals(source.offsets, []);
  }
});

Deno.test("a body longer than its size is not asked for again", async () => {
  const source = sourceOf(() => new Error("It must not be asked again"));
  const { error } = await run({ source, first: bodyOf([BYTES]), size: 100 });
  assert(error instanceof MismatchError);
  assertEquals(error.message, "Body is longer than 100 bytes");
  assertEquals(source.offsets, []);
});

Deno.test("an upstream that stays away is asked seven times, with growing pauses by chance", async () => {
  const source = sourceOf(() => new OciError("UNAVAILABLE", "Cannot reach it"));
  const { error, pauses } = await run({ source, size: 10 });
  assertEquals(error?.message, "Cannot reach it");
  assertEquals(source.offsets, [0, 0, 0, 0, 0, 0, 0]);
  assertEquals(pauses.length, 6);
  for (const [n, ms] of pauses.entries()) {
    const ceiling = 100 * 2 ** n;
    assert(ms >= ceiling / 2 && ms <= ceiling, `pause ${n}: ${ms}`);
  }
});

Deno.test("progress earns new attempts, but a byte per attempt does not for ever", async () => {
  const big = randomBytes(2_000_000, 2);
  const dripping = sourceOf((offset) => bodyOf([big.slice(offset, offset + 1)], { end: RESET }));
  const { error, bytes } = await run({ source: dripping, size: big.byteLength });
  assertEquals(error, RESET);
  assertEquals(bytes.byteLength, 33);
  const flowing = sourceOf((offset) =>
    bodyOf([big.slice(offset, offset + 50_000)], { end: RESET })
  );
  assertEquals((await run({ source: flowing, size: big.byteLength })).error, undefined);
});

const ANSWERS: [status: number, isAskedAgain: boolean][] = [
  [401, false],
  [403, false],
  [404, false],
  [416, false],
  [429, true],
  [502, true],
  [504, true],
];
for (const [status, isAskedAgain] of ANSWERS) {
  const what = isAskedAgain ? "is asked again" : "has said no";
  Deno.test(`an upstream that answers ${status} ${what}`, async () => {
    const refusal = new OciError("UNAVAILABLE", "Not now", { status });
    const source = sourceOf((offset, n) => n === 1 ? refusal : bodyOf([BYTES.slice(offset)]));
    const { error } = await run({ source, size: BYTES.byteLength });
    assertEquals(error, isAskedAgain ? undefined : refusal);
    assertEquals(source.offsets.length, isAskedAgain ? 2 : 1);
  });
}

Deno.test("cancelling ends the connection and the read under way", async () => {
  for (const size of [10, undefined]) {
    const fed = fedBody();
    const source = sourceOf(() => new Error("It must not be asked again"));
    const download = new Download({ source, first: fed.body, size, idle: 60_000 });
    const read = assertRejects(() => download.read(), Error, "Nobody reads it any more");
    download.cancel();
    await read;
    assert(fed.cancelled);
    assertEquals(source.offsets, []);
    await assertRejects(() => download.read(), Error, "Nobody reads it any more");
    assertEquals(source.offsets, []);
  }
});

Deno.test("cancelling ends the pause before the next attempt", async () => {
  const source = sourceOf(() => new OciError("UNAVAILABLE", "Cannot reach it"));
  const pausing = Promise.withResolvers<void>();
  const onResume = () => pausing.resolve();
  const download = new Download({ source, size: 10, idle: 60_000, onResume });
  const read = assertRejects(() => download.read(), Error, "Enough");
  await pausing.promise;
  download.cancel(new Error("Enough"));
  await read; // and no timer is left, says Deno
  assertEquals(source.offsets.length, 1);
});

Deno.test("cancelling gives up a connection that is being made", async () => {
  let given: AbortSignal | undefined;
  const download = new Download({
    source: {
      open(_offset, signal) {
        given = signal;
        const { promise, reject } = Promise.withResolvers<never>();
        signal?.addEventListener("abort", () => reject(signal.reason));
        return promise;
      },
    },
    idle: 60_000,
  });
  const read = assertRejects(() => download.read(), Error, "Enough");
  download.cancel(new Error("Enough"));
  await read;
  assert(given?.aborted);
});

Deno.test("a connection that comes after the download was cancelled is closed", async () => {
  const fed = fedBody();
  const opened = Promise.withResolvers<ReadableStream<Uint8Array>>();
  const download = new Download({ source: { open: () => opened.promise }, idle: 60_000 });
  const read = assertRejects(() => download.read(), Error, "Nobody reads it any more");
  download.cancel();
  opened.resolve(fed.body);
  await read;
  assert(fed.cancelled);
});
