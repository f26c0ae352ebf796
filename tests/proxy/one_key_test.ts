import { assert, assertEquals } from "@std/assert";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { makeImage } from "../support/image.ts";
import { LISTENERS, startListener } from "../support/listeners.ts";
import { type HostedRequest, type Sender, senderOf } from "../support/two_hosts.ts";

const CLIENTS = [...LISTENERS, "mod.ts"] as const;
const VICTIM = makeImage({ seed: 1 });
const FOREIGN = makeImage({ seed: 2 });
const PATH = "/v2/team/app/manifests/1";
const HUB = "docker.example.com";
const OTHER = "ghcr.example.com";

/** Two registries that have the same repository and tag, but not the same image, behind one proxy. */
async function startAll(name: typeof CLIENTS[number]) {
  const docker = await startFakeRegistry();
  docker.add("team/app", "1", VICTIM);
  const ghcr = await startFakeRegistry();
  ghcr.add("team/app", "1", FOREIGN);
  const all = await startListener(name === "mod.ts" ? "our HTTP/1" : name, {
    upstreams: { docker, ghcr },
    env: { CUSTOM_DOMAIN: "example.com" },
  });
  const sender = await senderOf(name, all);
  return {
    sender,
    docker,
    ghcr,
    async [Symbol.asyncDispose]() {
      await sender[Symbol.asyncDispose]();
      await all[Symbol.asyncDispose]();
      await docker.close();
      await ghcr.close();
    },
  };
}

/** As clients write them: the one host there is, where their protocol has it. */
function plain(name: typeof CLIENTS[number], host: string, path: string): HostedRequest {
  return name === "Deno's HTTP/2" ? { authority: host, path } : { hosts: [host], path };
}

/** What both registries' clients get. Twice: the first answer is kept, the second given from memory. */
async function assertOwn(
  sender: Sender,
  name: typeof CLIENTS[number],
  what: string,
): Promise<void> {
  for (const [host, image] of [[HUB, VICTIM], [OTHER, FOREIGN]] as const) {
    for (let i = 0; i < 2; i++) {
      const answer = await sender.send(plain(name, host, PATH));
      assertEquals(
        [answer.status, answer.header("docker-content-digest")],
        [200, image.digest],
        `${host} after ${what}`,
      );
      assertEquals(answer.text, new TextDecoder().decode(image.manifest), `${host} after ${what}`);
    }
  }
}

/** Hosts that a request may name beside the one that is attacked. */
const SECOND_HOSTS = [
  OTHER,
  `${HUB}.`,
  `${HUB}:8080`,
  `${HUB}, ${OTHER}`,
  `${HUB}@${OTHER}`,
  `${OTHER}/v2/?`,
  "example.com",
  "localhost",
  "127.0.0.1",
];

for (const name of CLIENTS) {
  Deno.test(`a request that names two hosts is 400, and changes nobody's answer, on ${name}`, async () => {
    await using all = await startAll(name);
    const { sender } = all;
    const asked = all.docker.log.length + all.ghcr.log.length;
    const attacks: HostedRequest[] = [];
    for (const host of SECOND_HOSTS) {
      attacks.push({ authority: HUB, hosts: [host], path: PATH });
      if (!/[@/ ]/.test(host)) attacks.push({ authority: host, hosts: [HUB], path: PATH });
    }
    attacks.push({ authority: HUB, hosts: [HUB, OTHER], path: PATH });
    attacks.push({ authority: HUB, hosts: [OTHER, HUB], path: PATH });
    if (name !== "Deno's HTTP/2") attacks.push({ hosts: [HUB, OTHER], path: PATH });
    for (const attack of attacks) {
      for (const method of ["GET", "HEAD"]) {
        const answer = await sender.send({ ...attack, method }).catch((error) => error as Error);
        const what = `${method} ${JSON.stringify(attack)}`;
        // What no HTTP/2 or Headers may carry does not get that far.
        if (answer instanceof Error) continue;
        assertEquals(answer.status, 400, what);
        // Deno refuses two fields itself, before anybody is asked.
        if (method === "HEAD" || attack.hosts?.length === 2 && name === "Deno's HTTP/1") continue;
        assertEquals(answer.header("content-type"), "application/json", what);
        const { errors } = JSON.parse(answer.text);
        assert(["NAME_INVALID", "UNKNOWN"].includes(errors[0].code), what);
      }
    }
    assertEquals(all.docker.log.length + all.ghcr.log.length, asked, "a registry was asked");
    await assertOwn(sender, name, "two hosts");
    // Again, with the answers in memory.
    for (const attack of attacks) await sender.send(attack).catch(() => {});
    await assertOwn(sender, name, "two hosts, from memory");
  });

  Deno.test(`a host that is written twice the same is one, on ${name}`, async () => {
    await using all = await startAll(name);
    for (const host of [HUB, HUB.toUpperCase(), "Docker.Example.com"]) {
      const { status, header } = await all.sender.send({
        authority: HUB,
        hosts: [host],
        path: PATH,
      });
      assertEquals([status, header("docker-content-digest")], [200, VICTIM.digest], host);
    }
    await assertOwn(all.sender, name, "one host");
  });

  Deno.test(`however a registry is named, its answers are kept for nobody else, on ${name}`, async () => {
    await using all = await startAll(name);
    const { sender, ghcr } = all;
    const port = new URL(ghcr.url).host;
    const digestPath = `/v2/team/app/manifests/${FOREIGN.digest}`;
    /** Host, path, and whose answer it is; undefined for none. */
    const ways: [string, string, typeof VICTIM | undefined][] = [
      [HUB, `${PATH}?ns=ghcr`, FOREIGN],
      [HUB, `${PATH}?ns=ghcr.io`, FOREIGN],
      [HUB, `${PATH}?ns=GHCR`, FOREIGN],
      [HUB, `${PATH}?ns=%67hcr`, FOREIGN],
      [HUB, `${PATH}?ns=${encodeURIComponent(port)}`, FOREIGN],
      [HUB, `${PATH}?ns=`, VICTIM],
      [HUB, `${PATH}?ns=docker&ns=ghcr`, VICTIM],
      [HUB, `${PATH}?ns=ghcr&ns=docker`, FOREIGN],
      [HUB, `${PATH}?NS=ghcr`, VICTIM],
      [HUB, `${PATH}?%6es=ghcr`, FOREIGN],
      [HUB, `${PATH}?x=1`, VICTIM],
      [HUB, digestPath, undefined],
      [`${HUB}.`, PATH, VICTIM],
      [`${OTHER}.`, PATH, FOREIGN],
      [`${HUB}:8080`, PATH, VICTIM],
      [`${OTHER}:80`, PATH, FOREIGN],
      [OTHER.toUpperCase(), PATH, FOREIGN],
      ["example.com", PATH, VICTIM],
      ["example.com", "/v2/ghcr/team/app/manifests/1", FOREIGN],
      ["example.com", "/v2/%67hcr/team/app/manifests/1", FOREIGN],
      ["example.com", "/v2/GHCR/team/app/manifests/1", FOREIGN],
      ["example.com", "/ghcr/v2/team/app/manifests/1", FOREIGN],
      ["example.com", `${PATH}?ns=ghcr`, FOREIGN],
      ["localhost", PATH, VICTIM],
      ["127.0.0.1", "/v2/ghcr/team/app/manifests/1", FOREIGN],
      [OTHER, "/v2/x/../team/app/manifests/1", FOREIGN],
      [OTHER, "/v2/%2e%2e/v2/team/app/manifests/1", FOREIGN],
      [OTHER, "/v2/team/%61pp/manifests/1", FOREIGN],
      [OTHER, "/v2/team/app/manifests/%31", FOREIGN],
      [OTHER, "/v2/team%2fapp/manifests/1", undefined],
      [OTHER, "//docker.example.com/v2/team/app/manifests/1", undefined],
      [OTHER, "/http://docker.example.com/v2/team/app/manifests/1", undefined],
    ];
    for (const [host, path, image] of ways) {
      for (let i = 0; i < 3; i++) {
        const answer = await sender.send(plain(name, host, path)).catch((error) => error as Error);
        if (answer instanceof Error) continue; // nothing that its protocol may carry
        const digest = answer.status === 200 ? answer.header("docker-content-digest") : undefined;
        assertEquals(digest, image?.digest, `${host} ${path}: ${answer.status}`);
      }
      await assertOwn(sender, name, `${host} ${path}`);
    }
  });
}

Deno.test("requests for one name at two registries at the same time share no download and no answer", async () => {
  for (const name of CLIENTS) {
    await using all = await startAll(name);
    const hosts = Array.from({ length: 24 }, (_, i) => i % 2 ? OTHER : HUB);
    const answers = await Promise.all(
      hosts.map((host) => all.sender.send(plain(name, host, PATH))),
    );
    for (const [i, { header }] of answers.entries()) {
      const { digest } = hosts[i] === HUB ? VICTIM : FOREIGN;
      assertEquals(header("docker-content-digest"), digest, `${name} ${hosts[i]}`);
    }
  }
});
