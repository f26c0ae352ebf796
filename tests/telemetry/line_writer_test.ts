import { assert, assertEquals, assertLess } from "@std/assert";
import { LineWriter } from "../../lib/telemetry/line_writer.ts";

/** What was written, and a reader that can be held up. */
function reader() {
  let text = "";
  let ready = Promise.resolve();
  let onWrite: (() => void) | undefined;
  return {
    get text() {
      return text;
    },
    /** Settles at the next write. */
    written: () => new Promise<void>((resolve) => onWrite = resolve),
    hold() {
      const { promise, resolve } = Promise.withResolvers<void>();
      ready = promise;
      return resolve;
    },
    options: {
      write: async (bytes: Uint8Array) => {
        onWrite?.();
        await ready;
        // A pipe takes what it has room for.
        const part = bytes.subarray(0, Math.max(1, Math.ceil(bytes.byteLength / 2)));
        text += new TextDecoder().decode(part);
        return part.byteLength;
      },
      missing: (lines: number) => `missing ${lines}\n`,
    },
  };
}

Deno.test("lines gather and are written in their order, without anybody asking", async () => {
  const to = reader();
  const lines = new LineWriter(to.options);
  const written = to.written();
  for (const line of ["a\n", "b\n", "c\n"]) lines.write(line);
  assertEquals(to.text, "");
  await written;
  await lines.end();
  assertEquals(to.text, "a\nb\nc\n");
});

Deno.test("ending writes what is there at once", async () => {
  const to = reader();
  const lines = new LineWriter(to.options);
  lines.write("last\n");
  await lines.end();
  assertEquals(to.text, "last\n");
});

Deno.test("many lines do not wait for the time to pass", async () => {
  const to = reader();
  const lines = new LineWriter(to.options);
  const written = to.written();
  for (let i = 0; i < 1000; i++) lines.write(`${"x".repeat(99)}\n`);
  await written;
  await lines.end();
  assertEquals(to.text.length, 100_000);
});

Deno.test("lines that nobody reads are dropped and counted, not kept", async () => {
  const to = reader();
  const lines = new LineWriter(to.options);
  const go = to.hold();
  const line = `${"x".repeat(2 ** 16 - 1)}\n`;
  for (let i = 0; i < 400; i++) lines.write(line);
  go();
  await lines.end();
  const missing = Number(/missing (\d+)\n/.exec(to.text)?.[1]);
  assert(missing > 0);
  assertEquals((to.text.length - `missing ${missing}\n`.length) / line.length, 400 - missing);
  assertLess(to.text.length, 10 * 2 ** 20);
});

Deno.test("a reader that is gone is nobody's trouble", async () => {
  const lines = new LineWriter({
    write: () => Promise.reject(new Error("Broken pipe")),
    missing: () => "",
  });
  lines.write("a\n");
  await lines.end();
  lines.write("b\n");
  await lines.end();
});
