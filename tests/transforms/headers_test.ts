import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  contentHeaders,
  type ContentOptions,
  type ExchangeKind,
  replyHeaders,
  rewriteLink,
  upstreamHeaders,
} from "../../lib/transforms/headers.ts";

const DIGEST = `sha256:${"0a".repeat(32)}`;

const client = new Headers({
  "accept": "application/vnd.oci.image.index.v1+json",
  "accept-encoding": "gzip",
  "authorization": "Bearer secret",
  "connection": "keep-alive",
  "cookie": "secret",
  "host": "proxy.example",
  "if-none-match": `"${DIGEST}"`,
  "if-range": `"${DIGEST}"`,
  "range": "bytes=1-2",
  "user-agent": "docker/27",
  "x-forwarded-for": "10.0.0.1",
});

const SENT: [kind: ExchangeKind, names: string[]][] = [
  ["manifest", ["accept", "accept-encoding", "user-agent"]],
  ["blob", ["accept-encoding", "if-range", "range", "user-agent"]],
  ["tags", ["accept", "accept-encoding", "user-agent"]],
  ["referrers", ["accept", "accept-encoding", "user-agent"]],
  ["catalog", ["accept", "accept-encoding", "user-agent"]],
  ["ping", ["accept-encoding", "user-agent"]],
];

for (const [kind, names] of SENT) {
  Deno.test(`upstream sees ${names} of a ${kind} request`, () => {
    const headers = upstreamHeaders(client, { kind });
    assertEquals([...headers.keys()], names);
    assertEquals(headers.get("accept-encoding"), "identity");
    assertEquals(headers.get("user-agent"), "docker/27");
  });
}

const upstream = new Headers({
  "accept-ranges": "bytes",
  "connection": "keep-alive",
  "content-length": "2",
  "content-range": "bytes 1-2/3",
  "content-type": "application/json; charset=utf-8",
  "docker-content-digest": DIGEST,
  "docker-ratelimit-source": "10.0.0.1",
  "etag": `"${DIGEST}"`,
  "last-modified": "Mon, 01 Jan 2024 00:00:00 GMT",
  "link": '</v2/a/tags/list?last=b>; rel="next"',
  "oci-filters-applied": "artifactType",
  "oci-subject": DIGEST,
  "ratelimit-remaining": "1;w=21600",
  "retry-after": "7",
  "server": "nginx",
  "set-cookie": "secret",
  "transfer-encoding": "chunked",
  "www-authenticate": "Basic",
});

const ALWAYS = ["content-length", "content-type", "docker-distribution-api-version"];
const CONTENT = [...ALWAYS, "docker-content-digest", "etag"];
const PASSED: [kind: ExchangeKind, names: string[]][] = [
  ["manifest", [...CONTENT, "last-modified", "oci-subject"]],
  ["blob", [...CONTENT, "accept-ranges", "content-range", "last-modified"]],
  ["tags", CONTENT],
  ["referrers", [...CONTENT, "oci-filters-applied"]],
  ["catalog", CONTENT],
  ["ping", ALWAYS],
];

for (const [kind, names] of PASSED) {
  Deno.test(`the client sees ${names} of upstream's answer to a ${kind} request`, () => {
    const headers = replyHeaders(upstream, { kind, status: 200 });
    assertEquals([...headers.keys()], names.toSorted());
    assertEquals(headers.get("docker-distribution-api-version"), "registry/2.0");
    assertEquals(headers.get("content-length"), "2");
  });
}

Deno.test("a manifest's type has no parameters, a list's is upstream's", () => {
  const type = (kind: ExchangeKind) =>
    replyHeaders(upstream, { kind, status: 200 }).get("content-type");
  assertEquals(type("manifest"), "application/json");
  assertEquals(type("tags"), "application/json; charset=utf-8");
});

Deno.test("Retry-After is passed with 429 and 503 only", () => {
  const statuses = [200, 404, 429, 500, 503].filter((status) =>
    replyHeaders(upstream, { kind: "manifest", status }).has("retry-after")
  );
  assertEquals(statuses, [429, 503]);
});

Deno.test("the length of a body that was decoded on the way is not passed", () => {
  for (const [encoding, passed] of [["gzip", false], ["br", false], ["Identity", true]] as const) {
    const headers = new Headers(upstream);
    headers.set("content-encoding", encoding);
    const reply = replyHeaders(headers, { kind: "blob", status: 206 });
    assertEquals(reply.has("content-length"), passed);
    assertEquals(reply.has("content-range"), passed);
    assertEquals(reply.has("content-encoding"), false);
  }
});

Deno.test("a Link is passed as one to this proxy or not at all", () => {
  const link = {
    upstream: new URL("https://ghcr.io/v2/a/tags/list"),
    client: new URL("http://proxy.example/v2/ghcr.io/a/tags/list"),
  };
  assertEquals(
    replyHeaders(upstream, { kind: "tags", status: 200, link }).get("link"),
    '</v2/ghcr.io/a/tags/list?last=b>; rel="next"',
  );
  const foreign = { ...link, upstream: new URL("https://other.example/") };
  const absolute = new Headers({ link: '<https://ghcr.io/v2/a/tags/list?last=b>; rel="next"' });
  assertEquals(
    replyHeaders(absolute, { kind: "tags", status: 200, link: foreign }).has("link"),
    false,
  );
});

const NEXT = '</v2/ghcr.io/a/b/tags/list?n=2&last=x%2B1>; rel="next"';
const LINKS: [link: string | null, rewritten: string | undefined][] = [
  [null, undefined],
  ["", undefined],
  ["rubbish", undefined],
  ['</v2/a/b/tags/list?n=2&last=x%2B1>; rel="next"', NEXT],
  ["</v2/a/b/tags/list?n=2&last=x%2B1>;rel=next", NEXT],
  ['<https://ghcr.io/v2/a/b/tags/list?n=2&last=x%2B1>; rel="next"', NEXT],
  ['<http://ghcr.io/v2/a/b/tags/list?n=2&last=x%2B1>; rel="next"', NEXT],
  ['<?n=2&last=x%2B1>; rel="next"', NEXT],
  ['<list?n=2&last=x%2B1>; title="t"; REL = "next" ', NEXT],
  ['</p>; rel="prev", <?n=2&last=x%2B1>; rel="next", </q>; rel="last"', NEXT],
  ['<https://evil.example/v2/a/b/tags/list?n=2>; rel="next"', undefined],
  ['<//evil.example/v2/a/b/tags/list?n=2>; rel="next"', undefined],
  ['<https://ghcr.io:444/v2/a/b/tags/list?n=2>; rel="next"', undefined],
  ['<?n=2>; rel="prev"', undefined],
  ["<?n=2>", undefined],
  ['<https://>; rel="next"', undefined],
  ['<list>; rel="next"', '</v2/ghcr.io/a/b/tags/list>; rel="next"'],
];

for (const [link, rewritten] of LINKS) {
  Deno.test(`Link ${link} becomes ${rewritten}`, () => {
    const options = {
      upstream: new URL("https://ghcr.io/v2/a/b/tags/list?n=2"),
      client: new URL("http://proxy.example/v2/ghcr.io/a/b/tags/list?n=2"),
    };
    assertEquals(rewriteLink(link, options), rewritten);
  });
}

Deno.test("a client that chose its registry by ns chooses it again on the next page, once", () => {
  const options = {
    upstream: new URL("https://ghcr.io/v2/a/tags/list"),
    client: new URL("http://proxy.example/v2/a/tags/list?ns=localhost:5000"),
  };
  const path = "/v2/a/tags/list";
  const rewrite = (target: string) => rewriteLink(`<${target}>; rel="next"`, options);
  assertEquals(rewrite("?last=b"), `<${path}?last=b&ns=localhost%3A5000>; rel="next"`);
  assertEquals(rewrite("list"), `<${path}?ns=localhost%3A5000>; rel="next"`);
  assertEquals(rewrite("?ns=x&last=b"), `<${path}?ns=x&last=b>; rel="next"`);
});

Deno.test("no Link makes the parser throw or leads off the client's path", () => {
  const texts = fc.oneof(fc.string(), fc.stringMatching(/^<[a-z/:?.]*>; rel="next"[<>,;]*$/));
  const url = new URL("http://proxy.example/v2/a/tags/list");
  fc.assert(fc.property(texts, (text) => {
    const link = rewriteLink(text, { upstream: url, client: url });
    const target = /^<([^<>]*)>; rel="next"$/.exec(link ?? '<>; rel="next"')?.[1] ?? "//x/";
    assertEquals(new URL(target, url).origin + new URL(target, url).pathname, url.href);
  }));
});

const content: ContentOptions = { kind: "manifest", digest: DIGEST, size: 10, cache: "MISS" };

Deno.test("a manifest's headers say its digest, exact length and type without parameters", () => {
  const mediaType = "application/vnd.oci.image.index.v1+json; charset=utf-8";
  assertEquals(Object.fromEntries(contentHeaders({ ...content, mediaType, byTag: true })), {
    "cache-control": "private, no-transform, no-cache",
    "content-length": "10",
    "content-type": "application/vnd.oci.image.index.v1+json",
    "docker-content-digest": DIGEST,
    "docker-distribution-api-version": "registry/2.0",
    "etag": `"${DIGEST}"`,
    "x-cache": "MISS",
    "x-content-type-options": "nosniff",
  });
});

Deno.test("a part of a blob has its own length, its place in the whole and an age", () => {
  const headers = contentHeaders({
    ...content,
    kind: "blob",
    cache: "HIT",
    ageSeconds: 3.9,
    range: { start: 2, end: 4 },
  });
  assertEquals(Object.fromEntries(headers), {
    "accept-ranges": "bytes",
    "age": "3",
    "cache-control": "private, no-transform, max-age=31536000, immutable",
    "content-length": "3",
    "content-range": "bytes 2-4/10",
    "content-type": "application/octet-stream",
    "docker-content-digest": DIGEST,
    "docker-distribution-api-version": "registry/2.0",
    "etag": `"${DIGEST}"`,
    "x-cache": "HIT",
    "x-content-type-options": "nosniff",
  });
});

Deno.test("an age is never negative: clocks go backwards", () => {
  assertEquals(contentHeaders({ ...content, ageSeconds: -5 }).get("age"), "0");
});
