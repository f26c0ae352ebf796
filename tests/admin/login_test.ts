import { assert, assertEquals } from "@std/assert";
import { isSame, Login } from "../../lib/admin/login.ts";

const TOKEN = "0123456789abcdef";

function bearer(token: string): Headers {
  return new Headers({ authorization: `Bearer ${token}` });
}

/** The cookie that a browser sends after a login. */
function cookieOf(login: Login): string {
  return login.cookie().split(";")[0]!;
}

Deno.test("a request needs the token as bearer, or the cookie of a login", () => {
  const login = new Login({ token: TOKEN });
  const cookie = cookieOf(login);
  const table: [Record<string, string>, number | undefined][] = [
    [{}, 401],
    [{ authorization: `Bearer ${TOKEN}` }, undefined],
    [{ authorization: `bearer  ${TOKEN}` }, undefined],
    [{ authorization: "Bearer wrong" }, 401],
    [{ authorization: `Basic ${TOKEN}` }, 401],
    [{ cookie: `theme=dark; ${cookie}` }, undefined],
    [{ cookie: cookieOf(new Login({ token: TOKEN })) }, 401],
    [{ cookie: `operator=${TOKEN}` }, 401],
    [{ cookie: "operator=" }, 401],
    [{ authorization: `Bearer ${cookie.split("=")[1]}` }, 401],
    [{ authorization: "Bearer wrong", cookie }, 401],
  ];
  for (const [headers, expected] of table) {
    const refusal = login.refuse(new Headers(headers), "192.0.2.1");
    login.refuse(bearer(TOKEN), "192.0.2.1"); // forgets the failures
    assertEquals(refusal?.status, expected, JSON.stringify(headers));
  }
  assertEquals(new Login({}).refuse(new Headers(), "192.0.2.1"), undefined);
});

Deno.test("a token that contains spaces works as bearer", () => {
  const login = new Login({ token: "correct horse battery" });
  assertEquals(login.refuse(bearer("correct horse battery"), "192.0.2.1"), undefined);
});

/** How many of `guesses` wrong tokens were looked at, one each `every` ms. */
function guessed(login: Login, clock: { now: number }, guesses: number, every: number): number {
  let looked = 0;
  for (let i = 0; i < guesses; i++, clock.now += every) {
    if (login.refuse(bearer(`guess ${i}`), "192.0.2.1")?.status === 401) looked++;
  }
  return looked;
}

Deno.test("wrong tokens from one address are checked at growing intervals", () => {
  const clock = { now: 0 };
  const login = new Login({ token: TOKEN, now: () => clock.now });
  assertEquals(guessed(login, clock, 100, 0), 5);
  // An hour of guesses, ten each second.
  const looked = guessed(login, clock, 36_000, 100);
  assert(looked > 400 && looked <= 460, `${looked} were looked at`);
});

Deno.test("during its pause an address cannot log in with the right token, and after the pause it can", () => {
  const clock = { now: 0 };
  const login = new Login({ token: TOKEN, now: () => clock.now });
  guessed(login, clock, 5, 0);
  const refusal = login.refuse(bearer(TOKEN), "192.0.2.1");
  assertEquals([refusal?.status, refusal?.retryAfter], [429, 1]);
  clock.now += 500;
  assertEquals(login.refuse(bearer(TOKEN), "192.0.2.1"), undefined);
  // It has begun anew.
  assertEquals(login.refuse(bearer("wrong"), "192.0.2.1")?.status, 401);
  assertEquals(login.refuse(bearer(TOKEN), "192.0.2.1"), undefined);
});

Deno.test("a flood of guesses does not lock out other addresses or logged-in browsers", () => {
  const clock = { now: 0 };
  const login = new Login({ token: TOKEN, now: () => clock.now });
  const cookie = cookieOf(login);
  guessed(login, clock, 1_000, 1);
  assertEquals(login.refuse(bearer(TOKEN), "192.0.2.1")?.status, 429);
  assertEquals(login.refuse(bearer(TOKEN), "127.0.0.1"), undefined);
  assertEquals(login.refuse(new Headers({ cookie }), "192.0.2.1"), undefined);
});

Deno.test("an IPv6 network counts as one address, and wrong cookies do not count as guesses", () => {
  const login = new Login({ token: TOKEN, now: () => 0 });
  for (let i = 0; i < 20; i++) {
    login.refuse(new Headers({ cookie: "operator=stale" }), "2001:db8::1");
  }
  for (let i = 0; i < 5; i++) {
    assertEquals(login.refuse(bearer("wrong"), `2001:db8::${i}`)?.status, 401);
  }
  assertEquals(login.refuse(bearer(TOKEN), "2001:db8::ffff")?.status, 429);
  assertEquals(login.refuse(bearer(TOKEN), "2001:db8:0:1::1"), undefined);
});

Deno.test("the operator's token is compared as a whole, of any length", () => {
  assertEquals(isSame("", ""), true);
  assertEquals(isSame("a", "aa"), false);
  assertEquals(isSame("ä", "ä"), true);
});
