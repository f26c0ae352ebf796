/**
 * What a cache with very much in it costs inside: a lookup, a hit, an admission that evicts, and a start.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { Content } from "../../lib/cache/content/content.ts";
import { type Backends, openEmbedded } from "../../lib/cache/backends.ts";
import type { LinkKey } from "../../lib/cache/index/index.ts";
import { Stats } from "../../lib/telemetry/stats.ts";
import { check, ratios } from "../figures.ts";
import { alternate, type Row, seriesOf } from "../row.ts";

const SMALL = 1_000;
const LARGE = 1_000_000;
/** Content with bytes, beside the entries that are rows alone. */
const REAL = 1_000;
const REAL_SIZE = 4_096;
const LOOKUPS = 5_000;
const HITS = 1_000;
/** In each round; all of them together evict less than the smaller cache has. */
const ADMISSIONS = 100;
const STARTS = 5;
const BATCH = 10_000;
/** How many times the smaller cache's figure each may be. An admission changes some ten pages of the index. */
const TARGETS = { "µs/hit": 1.2, "µs/admission": 1.5, "ms/start": 1.2 };

const NAMES = ["1,000 entries", "1,000,000 entries"] as const;
type Name = typeof NAMES[number];

function digestAt(n: number): string {
  return `sha256:${createHash("sha256").update(`entry ${n}`).digest("hex")}`;
}

function linkAt(n: number): LinkKey {
  const repository = `library/image-${n % 500}`;
  return { registry: "registry-1.docker.io", repository, digest: digestAt(n), kind: "blob" };
}

function bytesAt(n: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(REAL_SIZE);
  new DataView(bytes.buffer).setUint32(0, n);
  return bytes;
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** Milliseconds that `work` takes. */
async function timed(work: () => Promise<void>): Promise<number> {
  const before = performance.now();
  await work();
  return performance.now() - before;
}

/** A cache with so many entries, full to its cap. */
class Subject {
  readonly #dir: string;
  readonly #entries: number;
  readonly #real: string[] = [];
  #engines!: Backends;
  #content!: Content;
  #admitted = 0;

  private constructor(dir: string, entries: number) {
    this.#dir = dir;
    this.#entries = entries;
  }

  static async make(entries: number): Promise<Subject> {
    const subject = new Subject(await Deno.makeTempDir({ prefix: "bench-index-" }), entries);
    await subject.#open();
    await subject.#fill();
    return subject;
  }

  async #open(): Promise<void> {
    this.#engines = await openEmbedded(this.#dir, { onDamaged() {} }, { indexSize: 2 ** 40 });
    const maxSize = (this.#entries + REAL) * REAL_SIZE;
    const idle = 1_000;
    const stats = new Stats();
    this.#content = new Content({ ...this.#engines, maxSize, idle, stats, justFilled: 0 });
  }

  async #fill(): Promise<void> {
    const { index } = this.#engines;
    const now = Date.now();
    for (let from = 0; from < this.#entries; from += BATCH) {
      const numbers = Array.from(
        { length: Math.min(BATCH, this.#entries - from) },
        (_, i) => from + i,
      );
      await index.restoreBlobs(numbers.map((n) => {
        const at = now - 2 * this.#entries + n;
        return { digest: digestAt(n), size: REAL_SIZE, createdAt: at, usedAt: at, verifiedAt: now };
      }));
      for (const n of numbers) {
        await index.addLink(linkAt(n), { mediaType: "" });
        const { digest } = linkAt(n);
        if (n % 100 === 0) await index.setTag(linkAt(n), `v${n}`, { digest, checkedAt: now });
      }
    }
    for (let n = 0; n < REAL; n++) {
      const bytes = bytesAt(n);
      const digest = digestOf(bytes);
      this.#real.push(digest);
      await this.#content.put(digest, bytes);
      await index.addLink({ ...linkAt(n), digest }, { mediaType: "" });
    }
  }

  /** Milliseconds for a link and a row, of any entry that cannot have been evicted yet. */
  async lookup(): Promise<number> {
    const { index } = this.#engines;
    const half = this.#entries / 2;
    const keys = Array.from(
      { length: LOOKUPS },
      () => linkAt(Math.floor(half + Math.random() * half)),
    );
    const ms = await timed(async () => {
      for (const key of keys) {
        if (!await index.link(key) || !await index.blob(key.digest)) throw new Error("Not here");
      }
    });
    return ms / LOOKUPS;
  }

  /** Milliseconds for content looked up, opened and read. */
  async hit(): Promise<number> {
    const buffer = new Uint8Array(REAL_SIZE);
    const ms = await timed(async () => {
      for (let i = 0; i < HITS; i++) {
        const n = Math.floor(Math.random() * REAL);
        const digest = this.#real[n]!;
        const link = await this.#engines.index.link({ ...linkAt(n), digest });
        const blob = link && await this.#content.open(digest);
        if (!blob) throw new Error("Not here");
        await blob.read(0, buffer);
        blob.close();
      }
    });
    return ms / HITS;
  }

  /** Milliseconds for content that is stored in place of what was used longest ago. */
  async admission(): Promise<number> {
    const contents = Array.from({ length: ADMISSIONS }, () => {
      const bytes = bytesAt(REAL + ++this.#admitted);
      return { bytes, digest: digestOf(bytes) };
    });
    const ms = await timed(async () => {
      for (const { digest, bytes } of contents) {
        if (!await this.#content.put(digest, bytes)) throw new Error("Not admitted");
      }
    });
    return ms / ADMISSIONS;
  }

  /** Milliseconds from a closed cache to the first lookup. */
  async restart(): Promise<number> {
    let ms = 0;
    for (let i = 0; i < STARTS; i++) {
      await this.#content.close(0);
      await this.#engines.close();
      ms += await timed(async () => {
        await this.#open();
        await this.#engines.index.blob(digestAt(this.#entries - 1));
      });
    }
    return ms / STARTS;
  }

  async end(): Promise<void> {
    await this.#content.close(0);
    await this.#engines.close();
    await Deno.remove(this.#dir, { recursive: true });
  }
}

export const indexScale: Row = {
  name: "index-scale",
  title: "the cache inside, 1,000,000 entries beside 1,000: lookup, hit, admission, start",
  meaning: "Looking up, storing, evicting and starting do not slow down as the cache grows.",
  async run({ rounds, say }) {
    const subjects = new Map<Name, Subject>();
    try {
      for (const [i, name] of NAMES.entries()) {
        say(`  entering ${name}`);
        subjects.set(name, await Subject.make([SMALL, LARGE][i]!));
      }
      const found = await alternate({ rounds, say }, NAMES, async (name) => {
        const subject = subjects.get(name)!;
        return {
          "µs/lookup": await subject.lookup() * 1e3,
          "µs/hit": await subject.hit() * 1e3,
          "µs/admission": await subject.admission() * 1e3,
          "ms/start": await subject.restart(),
        };
      });
      const checks = Object.entries(TARGETS).map(([figure, atMost]) => {
        const of = (name: Name) => found.get(name)!.get(figure)!;
        const values = ratios(of("1,000,000 entries"), of("1,000 entries"));
        return check(`${figure} by 1,000 entries`, { values, target: { atMost } });
      });
      return { series: seriesOf(found), checks };
    } finally {
      for (const subject of subjects.values()) await subject.end();
    }
  },
};
