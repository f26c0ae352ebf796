import { assert, assertEquals } from "@std/assert";
import {
  type CachedResponse,
  type HotFacts,
  LARGEST_HOT,
  LONGEST_TARGET,
  ResponseCache,
} from "../../lib/response/response_cache.ts";

const KEY = { registry: "registry.example", repository: "team/app" };
const BYTES = new TextEncoder().encode("{}");

function request(target: string, headers: Record<string, string> = {}, method = "GET") {
  return { method, host: "a", target, header: (name: string) => headers[name] ?? null };
}

/** Answers in memory whose clock is `time`, and how one is kept. */
function setUp() {
  let time = 1_000_000;
  const answers = new ResponseCache({ now: () => time });
  function keep(path: string, facts: Partial<HotFacts> = {}, version = answers.version) {
    return answers.keep(request(path), {
      headers: new Headers({ "content-type": "x/y", "content-length": "2", "age": "9" }),
      facts: {
        key: KEY,
        digest: "sha256:1",
        bytes: BYTES,
        since: time,
        from: time,
        until: time + 60_000,
        used: () => {},
        ...facts,
      },
      version,
      recorder: () => () => {},
    });
  }
  const find = (path: string, headers = {}, method = "GET"): CachedResponse | undefined =>
    answers.find(request(path, headers, method), time);
  return { answers, keep, find, pass: (ms: number) => time += ms };
}

Deno.test("an answer is found by method and address, and by nothing less", () => {
  const { keep, find } = setUp();
  keep("/v2/a");
  assert(find("/v2/a"));
  assertEquals([find("/v2/a?ns=x"), find("/v2/b"), find("/v2/a", {}, "HEAD")], [
    undefined,
    undefined,
    undefined,
  ]);
});

Deno.test("it goes on the wire with its age and date as they are now", () => {
  const { keep, find, pass } = setUp();
  keep("/v2/a");
  pass(3_000);
  const text = new TextDecoder().decode(find("/v2/a")!.wire(1_003_000));
  assertEquals(
    text,
    "HTTP/1.1 200 OK\r\ncontent-type: x/y\r\ncontent-length: 2\r\nage: 3\r\n" +
      "date: Thu, 01 Jan 1970 00:16:43 GMT\r\n\r\n{}",
  );
});

Deno.test("bytes on their way to a slow client are not written over a second later", () => {
  const { keep } = setUp();
  const answer = keep("/v2/a")!;
  const first = answer.wire(1_000_000);
  const copy = first.slice();
  assert(answer.wire(1_001_000) !== first);
  assertEquals(first, copy);
});

Deno.test("it holds until it has to be decided anew, and not a moment longer", () => {
  const { keep, find, pass } = setUp();
  keep("/v2/a");
  pass(59_999);
  assert(find("/v2/a"));
  pass(1);
  assertEquals(find("/v2/a"), undefined);
  pass(-1);
  assertEquals(find("/v2/a"), undefined, "forgotten");
});

Deno.test("what was decided before something was forgotten is not kept after", () => {
  const { answers, keep, find } = setUp();
  const { version } = answers;
  answers.forgetContent("sha256:9");
  assertEquals([keep("/v2/a", {}, version), find("/v2/a")], [undefined, undefined]);
});

Deno.test("each change forgets what it concerns, and no more", () => {
  const { answers, keep, find } = setUp();
  const other = { ...KEY, repository: "team/other" };
  const all = {
    "/tag": { tag: "1" },
    "/tag2": { tag: "2" },
    "/digest": { digest: "sha256:2" },
    "/other": { key: other, tag: "1", digest: "sha256:3" },
  };
  for (const [path, facts] of Object.entries(all)) keep(path, facts);
  const left = () => Object.keys(all).filter((path) => find(path)).join(" ");
  answers.forgetTag(KEY, "1");
  assertEquals(left(), "/tag2 /digest /other");
  answers.forgetContent("sha256:2");
  assertEquals(left(), "/tag2 /other");
  answers.forgetRepository(KEY);
  assertEquals(left(), "/other");
  keep("/tag", all["/tag"]);
  keep("/tag", all["/tag"]);
  answers.forgetTag(KEY, "1");
  assertEquals(left(), "/other", "kept twice, forgotten once");
  answers.forgetRepository(other);
  assertEquals(left(), "");
});

Deno.test("memory is bounded: the answer used longest ago leaves, a large one is not kept", () => {
  const { keep, find } = setUp();
  assertEquals(keep("/large", { bytes: new Uint8Array(LARGEST_HOT + 1) }), undefined);
  const bytes = new Uint8Array(LARGEST_HOT);
  for (let i = 0; i < 500; i++) keep(`/${i}`, { bytes });
  assertEquals(find("/0"), undefined);
  assert(find("/499"));
});

Deno.test("a manifest is for who accepts it", () => {
  const { keep, find } = setUp();
  keep("/v2/a", { mediaType: "application/vnd.oci.image.index.v1+json" });
  for (const accept of ["*/*", "x/y, application/vnd.oci.image.index.v1+json"]) {
    assert(find("/v2/a", { accept }), accept);
  }
  assertEquals(
    find("/v2/a", { accept: "application/vnd.oci.image.manifest.v1+json" }),
    undefined,
  );
});

Deno.test("what answers in memory take is counted in bytes, addresses and logs included", () => {
  const { answers, keep, find } = setUp();
  for (let i = 0; i < 20_000; i++) keep(`/v2/a?${"q".repeat(900)}${i}`, { bytes: undefined });
  assert(answers.bytes <= 16 * 2 ** 20, `${answers.bytes} bytes`);
  const kept = Array.from({ length: 20_000 }, (_, i) => find(`/v2/a?${"q".repeat(900)}${i}`))
    .filter(Boolean).length;
  // Each takes its address and more than what an object takes.
  assert(kept > 1_000 && kept < 16 * 2 ** 20 / 2_500, `${kept} answers`);
});

Deno.test("an address that no client needs is not kept, nor looked for", () => {
  const { answers, keep, find } = setUp();
  const path = `/v2/a?${"q".repeat(LONGEST_TARGET)}`;
  assertEquals([keep(path), find(path), answers.bytes], [undefined, undefined, 0]);
});

Deno.test("an answer that is not asked for between two rounds is dropped", () => {
  const { answers, keep, find } = setUp();
  keep("/v2/a");
  keep("/v2/b");
  answers.dropUnused();
  assert(find("/v2/a"));
  answers.dropUnused();
  assert(find("/v2/a"));
  assertEquals(find("/v2/b"), undefined);
});

Deno.test("any number of different Accept headers is answered right, however long", () => {
  const { keep, find } = setUp();
  keep("/v2/a", { mediaType: "application/json" });
  for (let i = 0; i < 3_000; i++) {
    const others = `x/${i}, ${"y/z, ".repeat(i % 500)}`;
    assert(find("/v2/a", { accept: `${others}application/json` }));
    assertEquals(find("/v2/a", { accept: `${others}application/xml` }), undefined);
  }
});
