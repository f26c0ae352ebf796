import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  type Challenge,
  chooseChallenge,
  formatBearer,
  parseChallenges,
} from "../../lib/oci/challenge.ts";

const HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"';
const HUB_CHALLENGE: Challenge = {
  scheme: "bearer",
  params: { realm: "https://auth.docker.io/token", service: "registry.docker.io" },
};

const HEADERS: [header: string | null, challenges: Challenge[]][] = [
  [null, []],
  ["", []],
  [" ,, ", []],
  [HUB, [HUB_CHALLENGE]],
  [`BEARER REALM="r"`, [{ scheme: "bearer", params: { realm: "r" } }]],
  ["Basic", [{ scheme: "basic", params: {} }]],
  [`Basic realm="a", ${HUB}`, [{ scheme: "basic", params: { realm: "a" } }, HUB_CHALLENGE]],
  [`${HUB}, Basic realm=a`, [HUB_CHALLENGE, { scheme: "basic", params: { realm: "a" } }]],
  [`Basic, ${HUB}`, [{ scheme: "basic", params: {} }, HUB_CHALLENGE]],
  ["Negotiate YII==, Basic realm=a", [
    { scheme: "negotiate", params: {}, token68: "YII==" },
    { scheme: "basic", params: { realm: "a" } },
  ]],
  ['Bearer realm = "a" , scope = "b"', [{ scheme: "bearer", params: { realm: "a", scope: "b" } }]],
  ['Bearer realm="a",, ,scope="b",', [{ scheme: "bearer", params: { realm: "a", scope: "b" } }]],
  ['Bearer realm="a, Basic realm=\\"b\\"",scope="repository:x:pull,push"', [{
    scheme: "bearer",
    params: { realm: 'a, Basic realm="b"', scope: "repository:x:pull,push" },
  }]],
  ['Bearer realm="a\\\\b\\c"', [{ scheme: "bearer", params: { realm: "a\\bc" } }]],
  ['Bearer realm="a",realm="b"', [{ scheme: "bearer", params: { realm: "a" } }]],
  ['Bearer realm="never closed', [{ scheme: "bearer", params: { realm: "never closed" } }]],
  ['Bearer realm="",x=', [{ scheme: "bearer", params: { realm: "", x: "" } }]],
  ['"rubbish" Basic realm="a"', [
    { scheme: "rubbish", params: {} },
    { scheme: "basic", params: { realm: "a" } },
  ]],
];

for (const [header, challenges] of HEADERS) {
  Deno.test(`${JSON.stringify(header)} has ${challenges.length} challenges`, () => {
    assertEquals(parseChallenges(header), challenges);
  });
}

Deno.test("a Bearer with a realm is chosen wherever it stands, then Basic, then nothing", () => {
  const choose = (header: string) => chooseChallenge(parseChallenges(header))?.scheme;
  assertEquals(choose(`Basic realm="a", ${HUB}`), "bearer");
  assertEquals(choose('Bearer service="s", Basic realm="a"'), "basic");
  assertEquals(choose('Bearer service="s"'), undefined);
  assertEquals(choose("Negotiate"), undefined);
  assertEquals(choose('Bearer realm="a", Bearer realm="b"'), "bearer");
});

Deno.test("a Bearer challenge is one line with quoted values", () => {
  assertEquals(
    formatBearer({ realm: "https://a/v2/auth", service: "s" }),
    'Bearer realm="https://a/v2/auth",service="s"',
  );
  assertEquals(
    formatBearer({ realm: 'a"b\\', service: "s", scope: "repository:a:pull\r\nx: y" }),
    'Bearer realm="a\\"b\\\\",service="s",scope="repository:a:pullx: y"',
  );
});

Deno.test("a challenge written is read back the same, alone or after another", () => {
  const text = fc.stringMatching(/^[\x20-\x7e]*$/);
  const bearers = fc.record({ realm: text, service: text, scope: text.filter((s) => s !== "") });
  fc.assert(fc.property(bearers, (bearer) => {
    const expected = { scheme: "bearer", params: { ...bearer } };
    assertEquals(parseChallenges(formatBearer(bearer)), [expected]);
    assertEquals(parseChallenges(`Basic realm="x", ${formatBearer(bearer)}`)[1], expected);
  }));
});

Deno.test("no header makes the parser throw, and none makes what is written unfit for a header", () => {
  const texts = fc.oneof(fc.string({ unit: "binary" }), fc.stringMatching(/^[a=", \\]{0,30}$/));
  fc.assert(fc.property(texts, (text) => {
    for (const { scheme } of parseChallenges(text)) assert(scheme !== "");
    new Headers({ "www-authenticate": formatBearer({ realm: text, service: text, scope: text }) });
  }));
});
