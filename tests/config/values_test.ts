import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  listOf,
  parseAdminAddress,
  parseAdminToken,
  parseBoolean,
  parseCount,
  parseCredentials,
  parseDomain,
  parseHost,
  parseHosts,
  parseList,
  parsePort,
  parseTrust,
  parseUpstream,
  parseWait,
} from "../../lib/config/values.ts";
import { formatDuration } from "../../lib/util/units.ts";

const PARSERS: Readonly<Record<string, (text: string) => unknown>> = {
  parseAdminAddress,
  parseAdminToken,
  parseBoolean,
  parseCount,
  parseCredentials,
  parseDomain,
  parseHost,
  parseHosts,
  parseList,
  parsePort,
  parseTrust,
  parseUpstream,
  "parseWait(1)": parseWait(1),
  "listOf(parsePort)": listOf(parsePort),
};

/** What settings are made of, so that some of it is nearly one. */
const text = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: fc.constantFrom(..."0123456789.:/[]@,- *%#abfhmosx\n") }),
  fc.webUrl({ withQueryParameters: true }),
  fc.tuple(fc.ipV4(), fc.nat()).map(([host, port]) => `${host}:${port}`),
  fc.tuple(fc.ipV6(), fc.nat()).map(([host, port]) => `[${host}]:${port}`),
);

for (const [name, parse] of Object.entries(PARSERS)) {
  Deno.test(`${name} throws nothing but RangeError, whatever the text`, () => {
    fc.assert(fc.property(text, (text) => {
      try {
        parse(text);
      } catch (error) {
        assert(error instanceof RangeError, `${error}`);
      }
    }));
  });
}

const label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?$/);
const domain = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join("."));
const port = fc.integer({ min: 0, max: 65535 });

Deno.test("a domain is read back the same, in any case and with a trailing dot", () => {
  fc.assert(fc.property(domain, fc.boolean(), (domain, hasDot) => {
    assertEquals(parseDomain(domain.toUpperCase() + (hasDot ? "." : "")), domain);
  }));
});

Deno.test("an address and a port are read back the same", () => {
  const host = fc.oneof(fc.ipV4(), fc.ipV6(), domain);
  fc.assert(fc.property(host, port, (host, port) => {
    const bracketed = host.includes(":") ? `[${host}]` : host;
    assertEquals(parseHost(bracketed), host);
    assertEquals(parsePort(String(port)), port);
    assertEquals(parseAdminAddress(`${bracketed}:${port}`), { host, port });
  }));
});

Deno.test("entries are read back the same with any separator", () => {
  const separator = fc.stringMatching(/^\s*[\s,]\s*$/);
  fc.assert(fc.property(fc.array(domain), separator, (domains, separator) => {
    assertEquals(parseList(domains.join(separator)), domains);
    assertEquals(parseHosts(domains.map((one) => `*.${one}`).join(separator)), domains);
  }));
});

Deno.test("accounts are read back the same, and an invalid line is not repeated in the message", () => {
  const username = fc.stringMatching(/^[!-"$-9;-~]([ -9;-~]{0,8}[!-9;-~])?$/);
  const password = fc.stringMatching(/^([ -~]{0,8}[!-~])$/);
  const accounts = fc.array(fc.record({ username, password }), { minLength: 1 });
  fc.assert(fc.property(accounts, fc.constantFrom("\n", "\r\n"), (accounts, end) => {
    const lines = accounts.map(({ username, password }) => `${username}:${password}`);
    assertEquals(parseCredentials(["# accounts", ...lines, ""].join(end)), accounts);
  }));
  fc.assert(fc.property(fc.stringMatching(/^secret[!-9;-~]{0,8}$/), (line) => {
    try {
      parseCredentials(`ann:right\n${line}`);
      assert(false, "read");
    } catch (error) {
      assert(error instanceof RangeError && !error.message.includes("secret"));
    }
  }));
});

Deno.test("a delay is read back the same, within the limits of a timer", () => {
  fc.assert(fc.property(fc.nat({ max: 2 ** 33 }), (ms) => {
    const written = formatDuration(ms);
    try {
      assertEquals(parseWait(1000)(written), ms);
      assert(ms >= 1000 && ms < 2 ** 31);
    } catch (error) {
      assert(error instanceof RangeError && (ms < 1000 || ms >= 2 ** 31));
    }
  }));
});

Deno.test("an upstream's URL has no credentials and no query, and is read back the same", () => {
  fc.assert(fc.property(text, (text) => {
    let url: URL;
    try {
      url = parseUpstream(text);
    } catch {
      return;
    }
    assertEquals([url.username, url.password, url.search, url.hash], ["", "", "", ""]);
    assert(/^https?:$/.test(url.protocol));
    assertEquals(parseUpstream(url.href).href, url.href);
  }));
});
