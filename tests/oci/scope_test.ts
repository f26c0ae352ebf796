import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  formatScope,
  parseScope,
  pullScope,
  type Scope,
  splitScopes,
} from "../../lib/oci/scope.ts";

const SCOPES: [text: string, scope: Scope][] = [
  ["repository:a/b:pull,push", { type: "repository", name: "a/b", actions: ["pull", "push"] }],
  ["repository:a:*", { type: "repository", name: "a", actions: ["*"] }],
  ["registry:catalog:*", { type: "registry", name: "catalog", actions: ["*"] }],
  ["repository(plugin):a/b:pull", {
    type: "repository",
    class: "plugin",
    name: "a/b",
    actions: ["pull"],
  }],
  ["repository:localhost:5000/a/b:pull", {
    type: "repository",
    name: "localhost:5000/a/b",
    actions: ["pull"],
  }],
  ["repository:a:", { type: "repository", name: "a", actions: [] }],
];

for (const [text, scope] of SCOPES) {
  Deno.test(`${text} is read, and written back the same`, () => {
    assertEquals(parseScope(text), scope);
    assertEquals(formatScope(scope), text);
  });
}

for (
  const text of [
    "",
    "openid",
    "aws",
    "a:b",
    "::",
    ":a:pull",
    "repository::pull",
    "a(b:c:d",
    "a:b c:d",
    "a:b:c d",
  ]
) {
  Deno.test(`${JSON.stringify(text)} is no resource scope`, () => {
    assertEquals(parseScope(text), undefined);
  });
}

Deno.test("scopes are split at spaces, each once, in order", () => {
  assertEquals(splitScopes(["a:b:c  d:e:f", "", "a:b:c", "g"]), ["a:b:c", "d:e:f", "g"]);
});

Deno.test("reading a repository needs pull", () => {
  assertEquals(pullScope("library/nginx"), "repository:library/nginx:pull");
});

Deno.test("a scope written is read back the same", () => {
  const word = fc.stringMatching(/^[a-z]{1,8}$/);
  const scopes: fc.Arbitrary<Scope> = fc.record({
    type: word,
    class: word,
    name: fc.stringMatching(/^[a-z.:/]{1,20}$/),
    actions: fc.array(fc.constantFrom("pull", "push", "*")),
  }, { requiredKeys: ["type", "name", "actions"] });
  fc.assert(fc.property(scopes, (scope) => {
    assertEquals(parseScope(formatScope(scope)), { ...scope });
  }));
});

Deno.test("no text makes the parser throw", () => {
  fc.assert(fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a:(),\s]*$/)), (text) => {
    const scope = parseScope(text);
    if (scope !== undefined) assertEquals(parseScope(formatScope(scope)), scope);
  }));
});
