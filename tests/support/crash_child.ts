/**
 * A process for the crash test to kill: fills, reads, evicts and removes without end, in the folder and from
 * the seed it is given. It says what is stored when it is, and what leaves before it does.
 *
 * @module
 */
import { Content } from "../../lib/cache/content/content.ts";
import { openEmbedded } from "../../lib/cache/backends.ts";
import { Stats } from "../../lib/telemetry/stats.ts";
import { digestOf, randomBytes, randomOf } from "./content.ts";

/** The cap of the child's cache, bytes. */
export const CAP = 2_000_000;
/** How many different contents there are. */
const CONTENTS = 120;
const WORKERS = 8;

/** Content `n`: up to 300 kB, most of it much smaller. */
export function contentAt(n: number): Uint8Array<ArrayBuffer> {
  const random = randomOf(n + 1);
  return randomBytes(Math.floor(300_000 * random() ** 3), n + 1);
}

/** The numbers of all contents, by digest. */
export function contents(): Map<string, number> {
  return new Map(Array.from({ length: CONTENTS }, (_, n) => [digestOf(contentAt(n)), n]));
}

function say(line: string): void {
  // At once: what is said before a SIGKILL must not be lost with a buffer.
  Deno.stdout.writeSync(new TextEncoder().encode(line + "\n"));
}

/** The bytes from `offset` on, in pieces; breaks off now and then. */
function bodyFrom(
  bytes: Uint8Array<ArrayBuffer>,
  { offset, random }: { offset: number; random: () => number },
): ReadableStream<Uint8Array<ArrayBuffer>> {
  let at = offset;
  return new ReadableStream({
    async pull(controller) {
      await new Promise((resolve) => setTimeout(resolve, random() * 4));
      if (random() < 0.05) return controller.error(new Error("connection reset"));
      const next = Math.min(bytes.byteLength, at + 1 + Math.floor(random() * 40_000));
      if (next > at) controller.enqueue(bytes.slice(at, next));
      at = next;
      if (at === bytes.byteLength) controller.close();
    },
  }, { highWaterMark: 0 });
}

async function work(content: Content, random: () => number): Promise<void> {
  const n = Math.floor(random() * CONTENTS);
  const bytes = contentAt(n);
  const digest = digestOf(bytes);
  const choice = random();
  if (choice < 0.1) return await content.remove(digest, "removed");
  if (choice < 0.2) return void await content.put(digest, bytes);
  const blob = await content.open(digest);
  if (blob) {
    const buffer = new Uint8Array(blob.size);
    const n = await blob.read(0, buffer);
    if (!buffer.subarray(0, n).every((byte, i) => byte === bytes[i])) say(`wrong ${digest}`);
    return blob.close();
  }
  if (content.filling(digest)) return;
  const fill = await content.startFill({
    digest,
    size: random() < 0.7 ? bytes.byteLength : undefined,
    first: bodyFrom(bytes, { offset: 0, random }),
    source: { open: (offset) => Promise.resolve(bodyFrom(bytes, { offset, random })) },
    registry: "r",
  });
  if (!fill || random() < 0.5) return;
  const received = await new Response(fill.stream(undefined, () => {})).bytes();
  if (digestOf(received) !== digest) say(`wrong ${digest}`);
}

if (import.meta.main) {
  const [dir, seed] = Deno.args as [string, string];
  const { index, store } = await openEmbedded(dir, { onDamaged: () => say("damaged") });
  const addBlob = index.addBlob.bind(index);
  index.addBlob = (row) => {
    addBlob(row);
    say(`stored ${row.digest}`);
  };
  const removeBlob = index.removeBlob.bind(index);
  index.removeBlob = (digest) => {
    say(`leaving ${digest}`);
    removeBlob(digest);
  };
  const content = new Content({
    store,
    index,
    maxSize: CAP,
    justFilled: 20,
    idle: 10_000,
    stats: new Stats(),
  });
  say("open");
  const random = randomOf(Number(seed));
  setInterval(() => content.space.flush().catch((error) => say(`error ${error}`)), 10);
  await Promise.all(Array.from({ length: WORKERS }, async () => {
    while (true) {
      await work(content, random).catch((error) => say(`error ${error}`));
    }
  }));
}
