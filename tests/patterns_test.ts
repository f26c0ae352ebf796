/**
 * No regular expression takes more time than in proportion to its text, whatever a peer writes.
 */
import { assertEquals, assertGreater, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import { parseHead } from "../lib/server/http1/head.ts";
import { parseQuotaHeader, retryAfterMs } from "../lib/limits/quota.ts";
import { parseChallenges } from "../lib/oci/challenge.ts";
import { accepts } from "../lib/oci/media_type.ts";
import { parseImage, parseReference } from "../lib/oci/reference.ts";
import { parseScope, splitScopes } from "../lib/oci/scope.ts";
import { withoutSecrets } from "../lib/proxy/access_log.ts";
import { credentialOf } from "../lib/transforms/auth.ts";
import { rewriteLink } from "../lib/transforms/headers.ts";
import { clientAddress } from "../lib/transforms/policy.ts";
import { ifNoneMatch, ifRangeAllows, parseRange } from "../lib/transforms/range.ts";
import { isIpLiteral } from "../lib/oci/registry_table.ts";
import { causeOf } from "../lib/upstream/transport/send.ts";
import { superlinear, superlinearParser } from "./support/growth.ts";
import { patternsBelow, patternsIn } from "./support/patterns.ts";
import { ROOT } from "./support/proxy_process.ts";

/** What was once here, or is in every textbook. */
const BAD: readonly RegExp[] = [
  /(?<=\b(?:bearer|basic) +)[\w.~+/=-]{8,}|\beyJ[\w-]+\.[\w.-]+|(?<=\?)[\w%&=.~+/-]+/gi,
  /\beyJ[\w-]+\.[\w.-]+/gi,
  /^\s*(\S*)\s*(.*?)\s*$/s,
  /(https?:\/\/[^\s?#]*)[?#][^\s)]*/g,
  /<Upload>(.*?)<\/Upload>/gs,
  /\/+$/,
  /^\/+|\/+$/g,
  /%.*$/,
  /^(a+)+$/,
  /^(\w+\s?)*$/,
  /^(a|a)*b/,
  /^a*a*b/,
  /^\d+\d+\d+x/,
  /\s+$/,
];

const GOOD: readonly RegExp[] = [
  /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/,
  /^bytes (\d+)-(\d+)\/(\d+|\*)$/,
  /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu,
  /<([^<>]*)>([^<>]*)/g,
  /[^\s,"]+/y,
];

for (const pattern of BAD) {
  Deno.test(`the detector finds an attack on ${pattern}`, () => {
    assertEquals(typeof superlinear(pattern), "string");
  });
}

for (const pattern of GOOD) {
  Deno.test(`the detector finds no attack on ${pattern}`, () => {
    assertEquals(superlinear(pattern), undefined);
  });
}

Deno.test("every regular expression of a source is found, and nothing else", () => {
  const source = [
    "const A = /a\\/[/]b/g; // not /this/",
    "/* nor /that/ */ const half = size! / 2 / 3;",
    'const WORD = "[a-z]+"; const B = new RegExp(`^${WORD}\\\\.$`, "i");',
    "const text = `x/${f(/c/)}/y`; return /d/.test(a[0] / b);",
  ].join("\n");
  const found = patternsIn(source, "a.ts").map(({ at, pattern }) => `${at} ${pattern}`);
  assertEquals(found, [
    "a.ts:1 /a\\/[/]b/g",
    "a.ts:3 /^[a-z]+\\.$/i",
    "a.ts:4:1 /c/",
    "a.ts:4 /d/",
  ]);
  assertThrows(() => patternsIn("new RegExp(name)", "a.ts"), Error, "not made of constants");
});

Deno.test("every regular expression in lib/ takes time in proportion to its text", () => {
  const patterns = patternsBelow(ROOT, "lib");
  assertGreater(patterns.length, 100);
  const attacked = patterns.flatMap(({ at, pattern }) => {
    const attack = superlinear(pattern);
    return attack === undefined ? [] : [`${at} ${pattern}: ${attack}`];
  });
  assertEquals(attacked, []);
});

const SITE = { upstream: new URL("https://hub.example/v2/"), client: new URL("http://here/v2/") };

/** What reads what a peer wrote, and what such texts are made of. */
const PARSERS: Readonly<Record<string, [(text: string) => unknown, string[]]>> = {
  "a request's head": [
    (text) => {
      const bytes = Buffer.from(text, "latin1");
      parseHead(bytes, { start: 0, end: bytes.byteLength });
    },
    ["\r\n", "a: b\r\n", "GET / HTTP/1.1\r\n", " ", "\t", ":", "x"],
  ],
  "Accept": [
    (text) => accepts(text, "application/vnd.oci.image.index.v1+json"),
    [",", ";", "q=0", " ", "*/*", "application/vnd.oci.image.index.v1+json", "a"],
  ],
  "Authorization": [credentialOf, ["Bearer ", "Basic ", "basic.", " ", "x", "=", ":", "\t"]],
  "Range": [(text) => parseRange(text, 5), ["bytes=", "bytes", " ", "0", "-", ",", "="]],
  "If-None-Match": [(text) => ifNoneMatch(text, "sha256:0"), [",", '"', "W/", " ", "*", "a"]],
  "If-Range": [(text) => ifRangeAllows(text, "sha256:0"), [" ", '"', "W/", "a"]],
  "X-Forwarded-For": [
    (text) => clientAddress({ peer: "::1", forwardedFor: text, trusted: "peer" }),
    [",", "1.1.1.1", "[", "]", ":", " ", "%", "::1", ":80"],
  ],
  "Host": [isIpLiteral, [":", ".", "[", "]", "1", "a", "80"]],
  "a reference": [parseReference, [":", "a", "sha256:", ".", "-", "_", "+"]],
  "an image": [parseImage, [":", "@", "/", "a", "sha256:", ".", "-", "_", "__"]],
  "a scope": [parseScope, ["repository", ":", "(", ")", "a", "pull", ",", "/"]],
  "scopes": [(text) => splitScopes([text]), [" ", "a", "repository:a:pull", "\t", ":"]],
  "WWW-Authenticate": [
    parseChallenges,
    ["Bearer ", "realm=", '"', "\\", ",", " ", "=", "a", "Basic", "\t", "a=b", 'a="b",'],
  ],
  "Link": [
    (text) => rewriteLink(text, SITE),
    ["<", ">", ";", " ", "rel", "=", '"next"', "</v2/>", "; rel=next", ","],
  ],
  "Retry-After": [(text) => retryAfterMs(text, { now: 0, fallback: 0 }), ["1", " ", "Tue, ", ":"]],
  "RateLimit-Remaining": [parseQuotaHeader, ["1", ";", "w", "=", " ", ",", "1;w=1"]],
  "an upstream's words": [
    withoutSecrets,
    ["bearer ", "Basic ", " ", "eyJ", "-eyJ", ".", "?", "+", "a", "%", "=", "-"],
  ],
  "a failure's words": [
    causeOf,
    ["https://", "http://", "?", "#", ")", " ", "\n", "a", "error sending request for url ("],
  ],
};

for (const [name, [work, parts]] of Object.entries(PARSERS)) {
  Deno.test(`reading ${name} takes time in proportion to its length`, () => {
    assertEquals(superlinearParser(work, parts), undefined);
  });
}

Deno.test("a parser that takes time by the square of its text is found", () => {
  const append = (text: string) => {
    const url = new URL("http://here/");
    for (const word of text.split("&")) url.searchParams.append("scope", word);
  };
  assertEquals(typeof superlinearParser(append, ["&", "a"]), "string");
});
