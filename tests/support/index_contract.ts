/**
 * What every {@linkcode Index} does, whatever the engine: the same tests for each.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import type { RepositoryKey } from "../../lib/oci/registry.ts";
import type { BlobRow, Index, LinkKey } from "../../lib/cache/index/index.ts";
import { moveClock, type MovedClock } from "./clock.ts";
import { type Tool, toolTest } from "./requirements.ts";

/** An index to try, empty. */
export interface IndexUnderTest extends AsyncDisposable {
  readonly index: Index;
}

const NGINX: RepositoryKey = { registry: "registry-1.docker.io", repository: "library/nginx" };
const OTHER: RepositoryKey = { registry: "registry-1.docker.io", repository: "some_one/app.x-y" };
const QUAY: RepositoryKey = { registry: "quay.io", repository: "library/nginx" };

/** A digest that is as good as any other. */
function digest(n: number): string {
  return `sha256:${n.toString(16).padStart(64, "0")}`;
}

function row(
  n: number,
  { size = 10, at = 1_000, verified = at }: { size?: number; at?: number; verified?: number } = {},
): BlobRow {
  return { digest: digest(n), size, createdAt: at, usedAt: at, verifiedAt: verified };
}

function link(key: RepositoryKey, n: number, kind: LinkKey["kind"] = "blob"): LinkKey {
  return { ...key, digest: digest(n), kind };
}

async function all<T>(rows: Iterable<T> | AsyncIterable<T>): Promise<T[]> {
  return await Array.fromAsync(rows);
}

async function digestsOf(rows: Iterable<BlobRow> | AsyncIterable<BlobRow>): Promise<string[]> {
  return (await all(rows)).map((row) => row.digest).sort();
}

async function pruneAll(index: Index, before: number): Promise<void> {
  let cursor: string | undefined;
  let steps = 0;
  do {
    cursor = await index.prune(before, cursor);
    assert(++steps < 1_000, "prune comes to no end");
  } while (cursor !== undefined);
}

/** What an index under test may take: budgets of 200,000 bytes, and 50,000 for each repository. */
export const SMALL_INDEX = 2_000_000;

/** Registers the tests of an index that `make` makes; each gets one of its own. */
export function testIndex(
  name: string,
  { make, makeSmall, needs = [] }: {
    make: () => Promise<IndexUnderTest>;
    /** One that may take {@linkcode SMALL_INDEX}. */
    makeSmall: () => Promise<IndexUnderTest>;
    needs?: readonly Tool[];
  },
): void {
  const smallTest = (does: string, fn: (index: Index, clock: MovedClock) => Promise<void>) =>
    toolTest(`${name}: ${does}`, {
      needs,
      fn: async () => {
        using clock = moveClock();
        await using under = await makeSmall();
        await fn(under.index, clock);
      },
    });
  const test = (does: string, fn: (index: Index) => Promise<void>) =>
    toolTest(`${name}: ${does}`, {
      needs,
      fn: async () => {
        await using under = await make();
        await fn(under.index);
      },
    });

  test("content that was added is told with its size and times, other content is not", async (index) => {
    assertEquals(await index.blob(digest(1)), undefined);
    await index.addBlob(row(1, { size: 3, at: 5_000 }));
    assertEquals(await index.blob(digest(1)), row(1, { size: 3, at: 5_000 }));
    assertEquals(await index.blob(digest(2)), undefined);
  });

  test("content that is added again is counted once, with its new size", async (index) => {
    await index.addBlob(row(1, { size: 3 }));
    await index.addBlob(row(1, { size: 5, at: 2_000 }));
    const { bytes, entries } = await index.totals();
    assertEquals({ bytes, entries }, { bytes: 5, entries: 1 });
    assertEquals(await index.blob(digest(1)), row(1, { size: 5, at: 2_000 }));
  });

  test("content found in the store does not replace what is known of it", async (index) => {
    await index.addBlob(row(1, { size: 3 }));
    await index.restoreBlobs([row(1, { size: 4, verified: 0 }), row(2, { size: 7, verified: 0 })]);
    assertEquals((await index.blob(digest(1)))?.size, 3);
    assertEquals((await index.blob(digest(2)))?.verifiedAt, 0);
    const { bytes, entries } = await index.totals();
    assertEquals({ bytes, entries }, { bytes: 10, entries: 2 });
    await index.restoreBlobs([]);
  });

  test("content goes with its links everywhere and the tags that mean it, and nothing else does", async (index) => {
    for (const n of [1, 2]) {
      await index.addBlob(row(n));
      for (const key of [NGINX, QUAY]) {
        await index.addLink(link(key, n), { mediaType: "" });
        await index.addLink(link(key, n, "manifest"), { mediaType: "a/b" });
        await index.setTag(key, `v${n}`, { digest: digest(n), checkedAt: 1 });
      }
    }
    await index.removeBlob(digest(1));
    await index.removeBlob(digest(3));
    assertEquals(await index.blob(digest(1)), undefined);
    for (const key of [NGINX, QUAY]) {
      assertEquals(await index.link(link(key, 1)), undefined);
      assertEquals(await index.link(link(key, 1, "manifest")), undefined);
      assertEquals(await index.tag(key, "v1"), undefined);
      assertEquals(await index.link(link(key, 2)), { mediaType: "" });
      assertEquals(await index.tag(key, "v2"), { digest: digest(2), checkedAt: 1 });
    }
    const { bytes, entries } = await index.totals();
    assertEquals({ bytes, entries }, { bytes: 10, entries: 1 });
  });

  test("what is looked up at once is what is told one by one", async (index) => {
    if (!index.look) return; // in this process one by one costs nothing
    const at = Date.now() - 1_000;
    for (const n of [1, 2]) await index.addBlob(row(n, { at }));
    await index.addLink(link(NGINX, 1), { mediaType: "" });
    await index.addLink(link(NGINX, 2, "manifest"), { mediaType: "a/b" });
    await index.addLink(link(NGINX, 3), { mediaType: "" });
    await index.setTag(NGINX, "latest", { digest: digest(2), checkedAt: at });
    await index.setTag(NGINX, "bare", { digest: digest(4), checkedAt: at });
    await index.setTag(OTHER, "latest", { digest: digest(2), checkedAt: at });
    await index.setPublic(NGINX, at);
    for (const key of [NGINX, OTHER, QUAY]) {
      for (const kind of ["blob", "manifest"] as const) {
        const byDigest = [1, 2, 3, 4].map((n) => ({ digest: digest(n) }));
        for (const by of [...byDigest, { tag: "latest" }, { tag: "bare" }, { tag: "none" }]) {
          const tag = "tag" in by ? await index.tag(key, by.tag) : undefined;
          const meant = "digest" in by ? by.digest : tag?.digest;
          const link = meant && await index.link({ ...key, kind, digest: meant });
          const { usedAt: _, ...expected } = link && await index.blob(meant!) || {};
          const facts = await index.look({ ...key, kind, by, grant: "nobody's" });
          const { usedAt: __, ...found } = facts.row ?? {};
          assertEquals({ tag: facts.tag, link: facts.link, row: found }, {
            tag,
            link: link || undefined,
            row: expected,
          });
          assertEquals(facts.publicSince, link ? await index.publicSince(key) : undefined);
          assertEquals(facts.isGranted, false);
        }
      }
    }
  });

  test("a tag that moved on stays when its old content goes", async (index) => {
    await index.addBlob(row(1));
    await index.setTag(NGINX, "latest", { digest: digest(1), checkedAt: 1 });
    await index.setTag(NGINX, "latest", { digest: digest(2), checkedAt: 2 });
    await index.removeBlob(digest(1));
    assertEquals(await index.tag(NGINX, "latest"), { digest: digest(2), checkedAt: 2 });
  });

  test("a use moves content back in the order of leaving, an earlier one does not move it forward", async (index) => {
    for (const n of [1, 2, 3]) await index.addBlob(row(n, { at: n * 100 }));
    await index.touch(new Map([[digest(1), 1_000], [digest(3), 50], [digest(9), 2_000]]));
    await index.touch(new Map());
    const rows = await index.leastRecent(10);
    assertEquals(rows.map((r) => [r.digest, r.usedAt]), [
      [digest(2), 200],
      [digest(3), 300],
      [digest(1), 1_000],
    ]);
  });

  test("the content used longest ago is told in order, from and up to where it is asked", async (index) => {
    for (const n of [5, 3, 1, 4, 2]) await index.addBlob(row(n, { at: n * 100 }));
    const told = async (...args: Parameters<Index["leastRecent"]>) =>
      (await index.leastRecent(...args)).map((r) => r.usedAt);
    assertEquals(await told(2), [100, 200]);
    assertEquals(await told(2, { skip: 1 }), [200, 300]);
    assertEquals(await told(10, { before: 300 }), [100, 200]);
    assertEquals(await told(10, { before: 300, skip: 1 }), [200]);
    assertEquals(await told(10, { skip: 5 }), []);
  });

  test("the content hashed longest ago comes first, until it is hashed again", async (index) => {
    for (const n of [1, 2, 3]) await index.addBlob(row(n, { verified: n * 100 }));
    await index.restoreBlobs([row(4, { verified: 0 })]);
    const told = async () => (await index.leastVerified(10)).map((r) => r.digest);
    assertEquals(await told(), [4, 1, 2, 3].map(digest));
    await index.setVerified(digest(4), 250);
    await index.setVerified(digest(9), 1);
    assertEquals(await told(), [1, 2, 4, 3].map(digest));
    assertEquals((await index.blob(digest(4)))?.verifiedAt, 250);
    assertEquals((await index.leastVerified(1)).length, 1);
  });

  test("all content is told once, while other content comes and goes", async (index) => {
    const many = Array.from({ length: 1_200 }, (_, n) => row(n));
    await index.restoreBlobs(many);
    const seen: string[] = [];
    for await (const { digest: found } of index.blobs()) {
      if (seen.length % 100 === 0) {
        await index.removeBlob(digest(seen.length));
        await index.addBlob(row(5_000 + seen.length));
      }
      seen.push(found);
    }
    assertEquals(new Set(seen).size, seen.length);
    const told = new Set(seen);
    const stayed = many.filter((r) => Number(`0x${r.digest.slice(-8)}`) % 100 !== 0);
    assertEquals(stayed.filter((r) => !told.has(r.digest)), []);
  });

  test("content and promises together stay within the limit", async (index) => {
    await index.addBlob(row(1, { size: 40 }));
    const first = await index.reserve(50, 100);
    assert(first);
    assertEquals(await index.totals(), { bytes: 40, entries: 1, reserved: 50 });
    assertEquals(await index.reserve(11, 100), undefined);
    assertEquals(await first.grow(11, 100), false);
    assertEquals(await first.grow(10, 100), true);
    assertEquals((await index.totals()).reserved, 60);
    await first.release();
    assertEquals((await index.totals()).reserved, 0);
    const second = await index.reserve(60, 100);
    assert(second);
    await second.release();
    await second.release();
    assertEquals((await index.totals()).reserved, 0);
    const nothing = await index.reserve(0, 40);
    assert(nothing);
    assertEquals(await index.reserve(0, 39), undefined);
    await nothing.release();
  });

  test("promises asked for at once are not given twice", async (index) => {
    const asked = Array.from({ length: 40 }, () => index.reserve(10, 100));
    const given = (await Promise.all(asked)).filter((reservation) => reservation !== undefined);
    assertEquals(given.length, 10);
    for (const reservation of given) await reservation.release();
  });

  test("a link is one repository's of one registry, and of one kind", async (index) => {
    await index.addLink(link(NGINX, 1), { mediaType: "" });
    await index.addLink(link(OTHER, 2, "manifest"), { mediaType: "a/b+json" });
    assertEquals(await index.link(link(NGINX, 1)), { mediaType: "" });
    assertEquals(await index.link(link(OTHER, 2, "manifest")), { mediaType: "a/b+json" });
    for (const key of [link(QUAY, 1), link(OTHER, 1), link(NGINX, 2), link(NGINX, 1, "manifest")]) {
      assertEquals(await index.link(key), undefined);
    }
    await index.addLink(link(OTHER, 2, "manifest"), { mediaType: "c/d" });
    assertEquals(await index.link(link(OTHER, 2, "manifest")), { mediaType: "c/d" });
  });

  test("a tag is one repository's of one registry", async (index) => {
    await index.setTag(NGINX, "latest", { digest: digest(1), checkedAt: 5 });
    await index.setTag(QUAY, "latest", { digest: digest(2), checkedAt: 6 });
    assertEquals(await index.tag(NGINX, "latest"), { digest: digest(1), checkedAt: 5 });
    assertEquals(await index.tag(QUAY, "latest"), { digest: digest(2), checkedAt: 6 });
    assertEquals(await index.tag(OTHER, "latest"), undefined);
    assertEquals(await index.tag(NGINX, "late"), undefined);
    await index.removeTag(NGINX, "latest");
    await index.removeTag(OTHER, "latest");
    assertEquals(await index.tag(NGINX, "latest"), undefined);
    assertEquals(await index.tag(QUAY, "latest"), { digest: digest(2), checkedAt: 6 });
  });

  test("all tags are told", async (index) => {
    assertEquals(await all(index.tags()), []);
    const names: string[] = [];
    for (const key of [NGINX, QUAY, OTHER]) {
      for (let n = 0; n < 400; n++) {
        await index.setTag(key, `v${n}.0_x-y`, { digest: digest(n), checkedAt: n });
        names.push(`${key.registry} ${key.repository} v${n}.0_x-y ${digest(n)} ${n}`);
      }
    }
    const told = (await all(index.tags())).map((t) =>
      `${t.registry} ${t.repository} ${t.tag} ${t.digest} ${t.checkedAt}`
    );
    assertEquals(told.sort(), names.sort());
  });

  test("a public mark is one repository's of one registry, and can be taken back", async (index) => {
    const now = Date.now();
    assertEquals(await index.publicSince(NGINX), undefined);
    await index.setPublic(NGINX, now);
    assertEquals(await index.publicSince(NGINX), now);
    assertEquals(await index.publicSince(QUAY), undefined);
    await index.setPublic(NGINX, now + 1);
    assertEquals(await index.publicSince(NGINX), now + 1);
    await index.setPublic(NGINX, undefined);
    await index.setPublic(QUAY, undefined);
    assertEquals(await index.publicSince(NGINX), undefined);
  });

  test("links and tags without content, and marks without links, go when they are old", async (index) => {
    const now = Date.now();
    await index.addBlob(row(1));
    for (const n of [1, 2]) {
      await index.addLink(link(NGINX, n), { mediaType: "" });
      await index.setTag(NGINX, `v${n}`, { digest: digest(n), checkedAt: now });
    }
    await index.setPublic(NGINX, now);
    await index.setPublic(OTHER, now);
    await pruneAll(index, now - 60_000); // nothing is as old as that
    assert(await index.link(link(NGINX, 2)));
    assert(await index.tag(NGINX, "v2"));
    assertEquals(await index.publicSince(OTHER), now);
    await pruneAll(index, now + 60_000);
    assert(await index.link(link(NGINX, 1)));
    assert(await index.tag(NGINX, "v1"));
    assertEquals(await index.publicSince(NGINX), now);
    assertEquals(await index.link(link(NGINX, 2)), undefined);
    assertEquals(await index.tag(NGINX, "v2"), undefined);
    assertEquals(await index.publicSince(OTHER), undefined);
  });

  test("tidying goes on where it stopped, and comes to an end", async (index) => {
    for (let n = 0; n < 1_200; n++) {
      const key = { ...NGINX, repository: `library/r${n % 7}` };
      await index.addLink(link(key, n), { mediaType: "" });
      await index.setTag(key, `v${n}`, { digest: digest(n), checkedAt: 1 });
    }
    await index.addBlob(row(600));
    await pruneAll(index, Date.now() + 60_000);
    assertEquals((await all(index.tags())).map((t) => t.digest), [digest(600)]);
    const key = { ...NGINX, repository: `library/r${600 % 7}` };
    assert(await index.link(link(key, 600)));
    assertEquals(await index.link(link(key, 593)), undefined);
  });

  test("what has changed is no longer told to be about to", async (index) => {
    assertEquals([...await index.pending()], []);
    for (const n of [1, 1, 2, 3]) await index.markPending(digest(n));
    await index.clearPending(digest(2));
    await index.clearPending(digest(9));
    await index.addBlob(row(3));
    await index.restoreBlobs([row(1)]);
    await index.removeBlob(digest(1));
    assertEquals([...await index.pending()].filter((d) => d !== digest(1)), []);
  });

  test("any order of changes comes to what a plain list of facts comes to", async (index) => {
    const n = fc.integer({ min: 1, max: 6 });
    const key = fc.constantFrom(NGINX, QUAY);
    const at = fc.integer({ min: 1, max: 1_000 });
    const operation = fc.oneof(
      fc.record({ op: fc.constant("add" as const), n, size: fc.nat(50), at }),
      fc.record({ op: fc.constant("restore" as const), n, size: fc.nat(50), at }),
      fc.record({ op: fc.constant("remove" as const), n }),
      fc.record({ op: fc.constant("touch" as const), n, at }),
      fc.record({ op: fc.constant("link" as const), n, key }),
      fc.record({ op: fc.constant("tag" as const), n, key, tag: fc.constantFrom("a", "b") }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 25 }), async (operations) => {
        for (let i = 1; i <= 6; i++) await index.removeBlob(digest(i));
        const blobs = new Map<string, { size: number; used: number }>();
        const links = new Set<string>();
        const tags = new Map<string, string>();
        const name = (k: RepositoryKey, ...rest: string[]) =>
          [k.registry, k.repository, ...rest].join(" ");
        for (const o of operations) {
          const d = digest(o.n);
          switch (o.op) {
            case "add":
              await index.addBlob(row(o.n, { size: o.size, at: o.at }));
              blobs.set(d, { size: o.size, used: o.at });
              break;
            case "restore":
              await index.restoreBlobs([row(o.n, { size: o.size, at: o.at })]);
              if (!blobs.has(d)) blobs.set(d, { size: o.size, used: o.at });
              break;
            case "remove":
              await index.removeBlob(d);
              blobs.delete(d);
              for (const l of links) if (l.endsWith(d)) links.delete(l);
              for (const [t, meaning] of tags) if (meaning === d) tags.delete(t);
              break;
            case "touch": {
              await index.touch(new Map([[d, o.at]]));
              const blob = blobs.get(d);
              if (blob) blob.used = Math.max(blob.used, o.at);
              break;
            }
            case "link":
              await index.addLink(link(o.key, o.n), { mediaType: "" });
              links.add(name(o.key, d));
              break;
            case "tag":
              await index.setTag(o.key, o.tag, { digest: d, checkedAt: 1 });
              tags.set(name(o.key, o.tag), d);
              break;
          }
        }
        assertEquals(await digestsOf(index.blobs()), [...blobs.keys()].sort());
        const bytes = [...blobs.values()].reduce((sum, blob) => sum + blob.size, 0);
        assertEquals(await index.totals(), { bytes, entries: blobs.size, reserved: 0 });
        assertEquals(
          (await index.leastRecent(10)).map((r) => r.usedAt),
          [...blobs.values()].map((blob) => blob.used).sort((a, b) => a - b),
        );
        const told = (await all(index.tags())).map((t) => [name(t, t.tag), t.digest]);
        assertEquals(new Map(told as [string, string][]), tags);
        for (let i = 1; i <= 6; i++) {
          for (const k of [NGINX, QUAY]) {
            const isLinked = await index.link(link(k, i)) !== undefined;
            assertEquals(isLinked, links.has(name(k, digest(i))));
          }
        }
      }),
      { numRuns: 40 },
    );
  });

  test("content with very many tags and links goes with all of them, and others have their turn meanwhile", async (index) => {
    await index.addBlob(row(1));
    await index.addBlob(row(2));
    for (let n = 0; n < 2_000; n++) {
      const key = { ...NGINX, repository: `library/r${n}` };
      await index.setTag(NGINX, `v${n}`, { digest: digest(1), checkedAt: n });
      if (n < 1_000) await index.addLink(link(key, 1), { mediaType: "" });
    }
    await index.setTag(NGINX, "other", { digest: digest(2), checkedAt: 1 });
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    try {
      let isOver = false;
      const removal = Promise.resolve(index.removeBlob(digest(1))).finally(() => isOver = true);
      while (await index.blob(digest(1))) assert(!isOver);
      assert(!isOver, "the content itself goes first");
      await removal;
    } finally {
      clearInterval(timer);
    }
    assert(turns > 0, "nobody had a turn");
    assertEquals((await all(index.tags())).map(({ tag }) => tag), ["other"]);
    assertEquals(await index.link(link({ ...NGINX, repository: "library/r7" }, 1)), undefined);
    assertEquals(await index.tagCount(), 1);
  });

  test("content that comes back while it is being removed keeps what is noted of it then", async (index) => {
    await index.removeBlob(digest(2)); // what it takes is loaded from here on
    await index.addBlob(row(1));
    for (let n = 0; n < 2_000; n++) {
      await index.setTag(NGINX, `v${n}`, { digest: digest(1), checkedAt: n });
    }
    const removal = index.removeBlob(digest(1));
    await index.addBlob(row(1));
    await index.setTag(QUAY, "new", { digest: digest(1), checkedAt: 1 });
    await removal;
    assert(await index.blob(digest(1)));
    assertEquals((await index.tag(QUAY, "new"))?.digest, digest(1));
  });

  test("tags are told in pages, in the order of their names, of all repositories and of one", async (index) => {
    const names: string[] = [];
    for (const key of [QUAY, NGINX, { ...NGINX, repository: "library/nginx-more" }]) {
      for (let n = 0; n < 30; n++) {
        await index.setTag(key, `v${n}`, { digest: digest(n), checkedAt: n });
        names.push(`${key.registry} ${key.repository} v${n}`);
      }
    }
    names.sort();
    const read = async (of?: RepositoryKey) => {
      const told: string[] = [];
      let after: string | undefined;
      do {
        const page = await index.tagPage({ limit: 7, after, of });
        assert(page.tags.length <= 7);
        told.push(...page.tags.map((t) => `${t.registry} ${t.repository} ${t.tag}`));
        after = page.next;
      } while (after !== undefined);
      return told;
    };
    assertEquals(await read(), names);
    const ofNginx = names.filter((name) => name.startsWith("registry-1.docker.io library/nginx "));
    assertEquals(await read(NGINX), ofNginx);
    assertEquals(await read(OTHER), []);
    const { tags } = await index.tagPage({ limit: 40 });
    await index.removeTags(tags);
    assertEquals(await read(), names.slice(40));
    assertEquals(await index.tagCount(), 50);
  });

  smallTest(
    "however many tags of one digest are asked for, they stay within a repository's budget",
    async (index) => {
      await index.addBlob(row(1));
      for (let n = 0; n < 6_000; n++) {
        await index.setTag(NGINX, `v${n}`, { digest: digest(1), checkedAt: n });
        if (n % 100 === 0) await index.trim();
      }
      await index.trim();
      const kept = await all(index.tags());
      assert(kept.length < 300, `${kept.length} tags`);
      assert(kept.length > 30, `${kept.length} tags`);
      assertEquals(await index.tagCount(), kept.length);
      // Room for others, and for what is asked for next.
      await index.setTag(QUAY, "latest", { digest: digest(1), checkedAt: 1 });
      await index.setTag(NGINX, "latest", { digest: digest(1), checkedAt: 1 });
      assert(await index.tag(QUAY, "latest"));
      assert(await index.tag(NGINX, "latest"));
    },
  );

  smallTest(
    "a repository that is filled with tags and links pushes out nothing of others",
    async (index, clock) => {
      const others = Array.from({ length: 10 }, (_, n) => ({ ...QUAY, repository: `team/r${n}` }));
      for (const [n, key] of others.entries()) {
        await index.setTag(key, "latest", { digest: digest(n), checkedAt: 1 });
        await index.addLink(link(key, n), { mediaType: "" });
        await index.setPublic(key, Date.now());
      }
      for (let n = 0; n < 1_200; n++) {
        if (n % 50 === 0) clock.pass(60_000);
        await index.setTag(NGINX, `v${n}`, { digest: digest(n), checkedAt: n });
        await index.addLink(link(NGINX, n), { mediaType: "a/b" });
        if (n % 100 === 0) await index.trim();
      }
      await index.trim();
      assertEquals(await index.tag(NGINX, "v0"), undefined);
      for (const [n, key] of others.entries()) {
        assert(await index.tag(key, "latest"), `tag of ${key.repository}`);
        assert(await index.link(link(key, n)), `link of ${key.repository}`);
        assert(await index.publicSince(key), `mark of ${key.repository}`);
      }
    },
  );

  smallTest("long names count in bytes", async (index) => {
    const long = "x".repeat(120);
    const fill = async (key: RepositoryKey, name: (n: number) => string) => {
      for (let n = 0; n < 1_000; n++) {
        await index.setTag(key, name(n), { digest: digest(1), checkedAt: n });
        if (n % 50 === 0) await index.trim();
      }
      await index.trim();
      return (await all(index.tags())).filter((t) => t.repository === key.repository).length;
    };
    const short = await fill(NGINX, (n) => `v${n}`);
    const longOnes = await fill(OTHER, (n) => `${long}${n}`);
    assert(longOnes < 0.8 * short, `${longOnes} long, ${short} short`);
  });

  smallTest(
    "links, marks and notes of referrers of very many repositories stay within their budgets",
    async (index) => {
      const before = Date.now();
      for (let n = 0; n < 3_000; n++) {
        const key = { ...NGINX, repository: `library/r${n}` };
        await index.addLink(link(key, n), { mediaType: "" });
        await index.setPublic(key, before + n);
        await index.setTag(key, `referrers/${digest(n)}`, { digest: digest(n), checkedAt: n });
        if (n % 50 === 0) await index.trim();
      }
      await index.trim();
      const count = async (has: (key: RepositoryKey, n: number) => Promise<unknown>) => {
        let found = 0;
        for (let n = 0; n < 3_000; n++) {
          if (await has({ ...NGINX, repository: `library/r${n}` }, n) !== undefined) found++;
        }
        return found;
      };
      const kept = {
        links: await count(async (key, n) => await index.link(link(key, n))),
        marks: await count(async (key) => await index.publicSince(key)),
        notes: (await all(index.tags())).length,
      };
      for (const [what, n] of Object.entries(kept)) {
        assert(n > 50 && n < 2_000, `${n} ${what}`);
      }
      // Of marks those proved last stay.
      assert(await index.publicSince({ ...NGINX, repository: "library/r2999" }));
      assertEquals(await index.publicSince({ ...NGINX, repository: "library/r0" }), undefined);
    },
  );

  smallTest("a link's media type counts in bytes, also where it changes", async (index) => {
    await index.addLink(link(NGINX, 1), { mediaType: "" });
    await index.addLink(link(NGINX, 1), { mediaType: "m".repeat(60_000) });
    await index.trim();
    assertEquals(await index.link(link(NGINX, 1)), undefined);
    await index.addLink(link(NGINX, 2), { mediaType: "" });
    assert(await index.link(link(NGINX, 2)));
  });

  smallTest("what was used lately stays when its budget is trimmed", async (index, clock) => {
    await index.setTag(NGINX, "used", { digest: digest(1), checkedAt: 1 });
    await index.addLink(link(NGINX, 1), { mediaType: "" });
    for (let n = 0; n < 60; n++) {
      clock.pass(60_000);
      await index.setTag(NGINX, `v${n}`, { digest: digest(1), checkedAt: 1 });
      await index.addLink(link(NGINX, 100 + n), { mediaType: "" });
    }
    clock.pass(60 * 60_000);
    assert(await index.tag(NGINX, "used"));
    assert(await index.link(link(NGINX, 1)));
    await index.touch(new Map());
    for (let n = 60; n < 400; n++) {
      await index.setTag(NGINX, `v${n}`, { digest: digest(1), checkedAt: 1 });
      await index.addLink(link(NGINX, 100 + n), { mediaType: "" });
      if (n % 20 === 0) {
        await index.trim();
        await index.tag(NGINX, "used");
        await index.link(link(NGINX, 1));
        clock.pass(11 * 60_000);
        await index.touch(new Map());
      }
    }
    await index.trim();
    assert(await index.tag(NGINX, "used"));
    assert(await index.link(link(NGINX, 1)));
    assertEquals(await index.tag(NGINX, "v0"), undefined);
    assertEquals(await index.link(link(NGINX, 100)), undefined);
  });
}
