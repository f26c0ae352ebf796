/**
 * A million tags of one image: what removing them holds up, and how long the first page of images takes.
 *
 * @module
 */
import { join } from "@std/path";
import { createHash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { openEmbedded } from "../../lib/cache/backends.ts";
import { Content } from "../../lib/cache/content/content.ts";
import type { Index, TagEntry } from "../../lib/cache/index/index.ts";
import { FileStore } from "../../lib/cache/store/file_store.ts";
import { Inventory } from "../../lib/cache/content/inventory.ts";
import { Redis } from "../../lib/cache/store/redis.ts";
import { RedisIndex } from "../../lib/cache/index/redis_index.ts";
import { removeImages } from "../../lib/cache/content/removal.ts";
import { parseRedisUrl } from "../../lib/config/engine_url.ts";
import { Stats } from "../../lib/telemetry/stats.ts";
import { type Engine, redisCommand, startRedis } from "../../tests/support/engines.ts";
import { which } from "../../tests/support/requirements.ts";
import { type Check, check } from "../figures.ts";
import type { Row, Series } from "../row.ts";

const TAGS = 1_000_000;
/** Entered at once. */
const BATCH = 1_000;
/** An index that keeps all of them. */
const INDEX_SIZE = 100 * 2 ** 30;
const KEY = { registry: "registry-1.docker.io", repository: "library/app" };
const MANIFEST = new TextEncoder().encode(JSON.stringify({ schemaVersion: 2, layers: [] }));
const DIGEST = `sha256:${createHash("sha256").update(MANIFEST).digest("hex")}`;
const TARGETS = { standstill: 50, page: 200 };

/** One index with a million tags of one manifest. */
interface Subject extends AsyncDisposable {
  readonly index: Index;
  readonly store: FileStore;
  readonly content: Content;
  /** How long the engine did nothing else at most since it was asked, ms. */
  readonly standstill?: () => Promise<number>;
}

async function onSqlite(): Promise<Subject> {
  const dir = await Deno.makeTempDir({ prefix: "bench-tags-" });
  const open = () => openEmbedded(dir, { onDamaged() {} }, { indexSize: INDEX_SIZE });
  const first = await open();
  await enter(contentOf(first.store as FileStore, first.index), first.index);
  await first.close();
  // All at once: one by one takes minutes, and is not what is measured.
  const db = new DatabaseSync(join(dir, "index.sqlite"));
  db.prepare(`
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
    INSERT INTO tags SELECT ?, ?, 'v' || i, ?, i, i FROM n`)
    .run(TAGS, KEY.registry, KEY.repository, DIGEST);
  db.close();
  const engines = await open();
  const store = engines.store as FileStore;
  return {
    index: engines.index,
    store,
    content: contentOf(store, engines.index),
    async [Symbol.asyncDispose]() {
      await engines.close();
      await Deno.remove(dir, { recursive: true });
    },
  };
}

async function onRedis(): Promise<Subject> {
  const dir = await Deno.makeTempDir({ prefix: "bench-tags-" });
  const server = await startRedis({ persistent: false });
  await redisCommand(server.port, "CONFIG SET slowlog-log-slower-than 1000");
  const location = parseRedisUrl(`${server.url}?prefix=bench`);
  const redis = await Redis.connect({ location, onDown() {}, onUp() {} });
  const index = new RedisIndex(redis, { instance: "bench", inUse: 0, size: INDEX_SIZE });
  const store = new FileStore(dir);
  const content = contentOf(store, index);
  await enter(content, index);
  for (let from = 0; from < TAGS; from += BATCH) {
    const tags = Array.from({ length: BATCH }, (_, i) => `v${from + i}`);
    const row = { digest: DIGEST, checkedAt: Date.now() };
    await Promise.all(tags.map((tag) => index.setTag(KEY, tag, row)));
  }
  return {
    index,
    store,
    content,
    standstill: () => slowest(server),
    async [Symbol.asyncDispose]() {
      index.close();
      redis.close();
      await server[Symbol.asyncDispose]();
      await Deno.remove(dir, { recursive: true });
    },
  };
}

function contentOf(store: FileStore, index: Index): Content {
  return new Content({
    store,
    index,
    maxSize: 1e9,
    idle: 1_000,
    stats: new Stats(),
    justFilled: 0,
  });
}

/** What Redis' slowest command since this was asked last took, ms. */
async function slowest({ port }: Engine): Promise<number> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  await connection.write(new TextEncoder().encode("SLOWLOG GET 1000\r\nSLOWLOG RESET\r\n"));
  await delay(500);
  const buffer = new Uint8Array(2 ** 22);
  const n = await connection.read(buffer) ?? 0;
  // Each entry begins with its number, the time and the microseconds it took.
  const entries = new TextDecoder().decode(buffer.subarray(0, n))
    .matchAll(/\*6\r\n:\d+\r\n:\d+\r\n:(\d+)\r\n/g);
  return Math.max(0, ...[...entries].map(([, micros]) => Number(micros) / 1000));
}

/** Collects what entering a million tags left: doing so takes V8 70 ms, and is not what is measured. */
function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
}

/** How long the event loop did not come to a timer at most while `work` went on, ms. */
async function standstillDuring(work: () => Promise<unknown>): Promise<number> {
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  }, 1);
  try {
    await work();
    longest = Math.max(longest, performance.now() - last);
    return longest;
  } finally {
    clearInterval(timer);
  }
}

/** Enters the image, without its tags. */
async function enter(content: Content, index: Index): Promise<void> {
  await content.put(DIGEST, MANIFEST);
  await index.addLink({ ...KEY, digest: DIGEST, kind: "manifest" }, { mediaType: "a/b" });
}

export const manyTags: Row = {
  name: "many-tags",
  title:
    "1,000,000 tags of one image: the first page of images, and removing the image or its content",
  meaning:
    "A client that asks for very many tags does not slow down others, nor does removing those tags.",
  async run({ say }) {
    const series: Series[] = [];
    const checks: Check[] = [];
    const kinds = { SQLite: onSqlite, ...which("redis-server") ? { Redis: onRedis } : {} };
    for (const [server, open] of Object.entries(kinds)) {
      const figures: Record<string, number> = {};
      for (const what of ["rm", "removal of its content"] as const) {
        say(`  ${server}, before ${what}`);
        await using subject = await open();
        const { index, store, content, standstill } = subject;
        const source = { index, store, registries: [] };
        if (what === "rm") {
          const began = performance.now();
          const { images } = await new Inventory(source).page({ limit: 50 });
          figures["ms for the first page"] = performance.now() - began;
          if (images.length !== 50) throw new Error("Not a page");
        }
        collectGarbage();
        await standstill?.();
        const remove = (digest: string) => content.remove(digest, "removed");
        const began = performance.now();
        const own = await standstillDuring(async () => {
          if (what === "rm") await removeImages({ ...source, remove }, KEY);
          else await remove(DIGEST);
        });
        figures[`s for ${what}`] = (performance.now() - began) / 1000;
        figures[`ms standstill, ${what}`] = own;
        if (standstill) figures[`ms standstill of Redis, ${what}`] = await standstill();
        const left: readonly TagEntry[] = (await index.tagPage({ limit: 1 })).tags;
        if (left.length > 0) throw new Error("Not removed");
      }
      for (const [figure, value] of Object.entries(figures)) {
        say(`  ${server}: ${figure} ${value.toPrecision(3)}`);
        series.push({ server, figure, values: [value] });
        const atMost = figure.startsWith("ms for")
          ? TARGETS.page
          : figure.startsWith("ms")
          ? TARGETS.standstill
          : undefined;
        if (atMost === undefined) continue;
        const what = `${figure}, ${server}`;
        checks.push(check(what, { values: [value], target: { atMost } }));
      }
    }
    return { series, checks };
  },
};
