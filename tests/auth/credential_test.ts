import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import { type Credential, credentialOf } from "../../lib/transforms/auth.ts";
import { basicAuthorization, credentialId } from "../../lib/auth/credential.ts";

const basic = fc.record({
  kind: fc.constant("basic" as const),
  username: fc.string(),
  password: fc.string(),
});
const bearer = fc.record({
  kind: fc.constant("bearer" as const),
  token: fc.string({ minLength: 1 }),
});
const credential: fc.Arbitrary<Credential> = fc.oneof(basic, bearer);

Deno.test("two credentials have one id exactly where they are the same", () => {
  fc.assert(fc.property(credential, credential, (a, b) => {
    const isSame = JSON.stringify(a) === JSON.stringify(b);
    assertEquals(credentialId(a) === credentialId(b), isSame);
    assertEquals(credentialId({ ...a }), credentialId(a));
  }));
});

Deno.test("where username and password meet makes a difference, and so does the scheme", () => {
  const ids = [
    credentialId({ kind: "basic", username: "a", password: "b:c" }),
    credentialId({ kind: "basic", username: "a:b", password: "c" }),
    credentialId({ kind: "basic", username: "a\0", password: "b" }),
    credentialId({ kind: "basic", username: "a", password: "\0b" }),
    credentialId({ kind: "bearer", token: '["a","b"]' }),
    credentialId({ kind: "basic", username: "a", password: "b" }),
  ];
  assertEquals(new Set(ids).size, ids.length);
});

Deno.test("an id tells nothing of the secret", () => {
  const secret = fc.stringMatching(/^[ -~]{4,40}$/);
  fc.assert(fc.property(secret, (secret) => {
    for (
      const id of [
        credentialId({ kind: "bearer", token: secret }),
        credentialId({ kind: "basic", username: secret, password: secret }),
      ]
    ) {
      assertMatch(id, /^[0-9a-f]{64}$/);
      assert(!id.includes(secret) || /^[0-9a-f]+$/.test(secret));
    }
  }));
  assertEquals(credentialId({ kind: "anonymous" }), "anonymous");
  assertNotEquals(credentialId({ kind: "bearer", token: "anonymous" }), "anonymous");
});

Deno.test("a Basic header is read back as what it was made of", () => {
  const user = fc.string({ unit: "grapheme" }).filter((text) => !text.includes(":"));
  const password = fc.string({ unit: "grapheme" });
  fc.assert(fc.property(user, password, (username, password) => {
    const read = credentialOf(basicAuthorization(username, password));
    const isEmpty = username === "" && password === "";
    assertEquals(read, isEmpty ? { kind: "anonymous" } : { kind: "basic", username, password });
  }));
  // RFC 7617, section 2.1
  assertEquals(basicAuthorization("test", "123£"), "Basic dGVzdDoxMjPCow==");
});

Deno.test("an id means nothing to another process, and cannot be computed from the credential", async () => {
  const module = new URL("../../lib/auth/credential.ts", import.meta.url).href;
  const bearer = { kind: "bearer", token: "secret" } as const;
  const code = `import { credentialId } from ${JSON.stringify(module)};
    console.log(credentialId({ kind: "bearer", token: "secret" }));`;
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["eval", code] }).output();
  const other = new TextDecoder().decode(stdout).trim();
  assertMatch(other, /^[0-9a-f]{64}$/);
  assertNotEquals(other, credentialId(bearer));
});
