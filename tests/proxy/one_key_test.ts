import { assert, assertEquals } from "@std/assert";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { basicHeader } from "../support/fake_token.ts";
import { rawRequest, whole } from "../support/http.ts";
import { makeArtifact, makeImage, MEDIA } from "../support/image.ts";
import { LISTENERS, startListener } from "../support/listeners.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
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
        assertEquals(errors[0].code, "NAME_INVALID", what);
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

/** One request, and what it alone is answered with. */
interface Asked {
  readonly host: string;
  readonly path: string;
  readonly method?: "GET" | "HEAD";
  readonly headers?: readonly (readonly [string, string])[];
  /** Of the content; undefined where it is refused. */
  readonly digest?: string;
  /** Whether upstream has to be asked for this client alone. */
  readonly isOwn?: boolean;
}

Deno.test("requests that differ in one thing that decides never share an answer, however they meet", async () => {
  const users = { ann: "secret", bob: "other" };
  const [docker, ghcr] = await Promise.all([
    startFakeRegistry({ auth: "token", users }),
    startFakeRegistry({ auth: "token", users }),
  ]);
  const images = Array.from({ length: 8 }, (_, i) => makeImage({ seed: 10 + i }));
  const imageAt = (i: number) => images[i] ?? VICTIM;
  const [app1, app2, other, secret] = [imageAt(0), imageAt(1), imageAt(2), imageAt(3)];
  const [foreign, open, anns, bobs] = [imageAt(4), imageAt(5), imageAt(6), imageAt(7)];
  docker.add("team/app", "1", app1);
  docker.add("team/app", "2", app2);
  docker.add("team/other", "1", other);
  docker.add("team/secret", "1", secret, { readers: ["ann"] });
  ghcr.add("team/app", "1", foreign);
  ghcr.add("team/secret", "1", open);
  docker.add("team/own", "1", anns, { readers: ["ann"] });
  ghcr.add("team/own", "1", bobs, { readers: ["bob"] });
  // Long enough for all of a round to be under way at once.
  for (const { faults } of [docker, ghcr]) faults.add({}, { delay: 30 });
  const env = { CUSTOM_DOMAIN: "example.com" };
  const layer = secret.layers[0]!.digest;
  const as = (user: keyof typeof users) =>
    [["Authorization", basicHeader(user, users[user])]] as const;
  const accept = (type: string) => [["Accept", type]] as const;
  const manifest = (repository: string, reference: string) =>
    `/v2/${repository}/manifests/${reference}`;
  const requests: Asked[] = [
    // Method: what is kept of a HEAD has no body for a GET.
    { host: HUB, path: manifest("team/app", "1"), method: "HEAD", digest: app1.digest },
    { host: HUB, path: manifest("team/other", "1"), method: "HEAD", digest: other.digest },
    { host: HUB, path: manifest("team/app", "1"), digest: app1.digest },
    // Registry.
    { host: OTHER, path: manifest("team/app", "1"), digest: foreign.digest },
    { host: HUB, path: manifest("team/app", "1") + "?ns=ghcr", digest: foreign.digest },
    { host: OTHER, path: manifest("team/secret", "1"), digest: open.digest },
    // Repository.
    { host: HUB, path: manifest("team/other", "1"), digest: other.digest },
    { host: HUB, path: manifest("team/app", other.digest) },
    { host: OTHER, path: manifest("team/app", app1.digest) },
    { host: HUB, path: `/v2/team/app/blobs/${layer}` },
    { host: OTHER, path: `/v2/team/secret/blobs/${layer}` },
    // Reference.
    { host: HUB, path: manifest("team/app", "2"), digest: app2.digest },
    { host: HUB, path: manifest("team/app", app2.digest), digest: app2.digest },
    // What the client accepts.
    {
      host: HUB,
      path: manifest("team/app", "1"),
      headers: accept(MEDIA.docker.manifest),
      isOwn: true,
    },
    {
      host: HUB,
      path: manifest("team/app", "1"),
      headers: accept(MEDIA.oci.manifest),
      digest: app1.digest,
    },
    // Who may read.
    { host: HUB, path: manifest("team/own", "1"), headers: as("ann"), digest: anns.digest },
    { host: OTHER, path: manifest("team/own", "1"), headers: as("bob"), digest: bobs.digest },
    { host: HUB, path: manifest("team/own", "1"), headers: as("bob") },
    { host: OTHER, path: manifest("team/own", "1"), headers: as("ann") },
    { host: HUB, path: manifest("team/secret", "1"), headers: as("ann"), digest: secret.digest },
    { host: HUB, path: manifest("team/secret", "1"), headers: as("bob") },
    { host: HUB, path: manifest("team/secret", "1") },
    { host: HUB, path: manifest("team/secret", secret.digest), headers: as("bob") },
    { host: HUB, path: `/v2/team/secret/blobs/${layer}`, headers: as("ann"), digest: layer },
    { host: HUB, path: `/v2/team/app/blobs/${layer}`, headers: as("ann") },
    { host: HUB, path: `/v2/team/secret/blobs/${layer}`, headers: as("bob") },
    { host: HUB, path: `/v2/team/secret/blobs/${layer}` },
    {
      host: HUB,
      path: manifest("team/secret", "1"),
      method: "HEAD",
      headers: [["Authorization", basicHeader("ann", "wrong")]],
    },
  ];
  async function check(proxy: TestProxy, request: Asked, round: string): Promise<void> {
    const { host, path, method = "GET", headers = [], digest, isOwn } = request;
    const answer = await rawRequest(proxy.host, {
      method,
      path,
      headers: [["Host", host], ...headers],
      timeout: 5_000,
    });
    const what = `${method} ${host}${path} ${JSON.stringify(headers)}, ${round}`;
    if (isOwn) return assert(answer.headers.get("x-cache") !== "HIT", what);
    if (digest === undefined) {
      return assert([401, 403, 404].includes(answer.status), `${answer.status}: ${what}`);
    }
    assertEquals([answer.status, answer.headers.get("docker-content-digest")], [200, digest], what);
    if (method === "HEAD") return assertEquals(answer.body.byteLength, 0, what);
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", answer.body)).toHex();
    assertEquals(`sha256:${hash}`, digest, what);
  }
  {
    await using proxy = await startTestProxy({ upstreams: { docker, ghcr }, env });
    for (let round = 0; round < 4; round++) {
      // Each time in another order: who is first decides what the others join.
      const order = [...requests, ...requests]
        .map((request, i) => ({ request, at: (i * 7919 + round * 104729) % 61 }))
        .toSorted((a, b) => a.at - b.at);
      await Promise.all(order.map(({ request }) => check(proxy, request, `round ${round}`)));
    }
  }
  await using proxy = await startTestProxy({ upstreams: { docker, ghcr }, env });
  for (let round = 0; round < 3; round++) {
    for (const request of requests) await check(proxy, request, `in turn, round ${round}`);
  }
  await Promise.all([docker.close(), ghcr.close()]);
});

Deno.test("a list of referrers that was asked for as something else is kept for nobody", async () => {
  await using docker = await startFakeRegistry();
  const signature = makeArtifact(VICTIM);
  docker.add("team/app", "1", VICTIM);
  docker.add("team/app", undefined, signature);
  await using proxy = await startTestProxy({ upstreams: { docker } });
  await whole(`${proxy.url}${PATH}`);
  const url = `${proxy.url}/v2/team/app/referrers/${VICTIM.digest}`;
  const digests = async () => {
    const { json } = await whole(url, { headers: { accept: MEDIA.oci.index } });
    return json.manifests.map(({ digest }: { digest: string }) => digest);
  };
  assertEquals(await digests(), [signature.digest]);
  docker.faults.add({ kind: "referrers" }, {
    status: 200,
    body: JSON.stringify({ schemaVersion: 2, manifests: [] }),
  }, { times: 1 });
  const { json } = await whole(url, { headers: { accept: "text/plain" } });
  assertEquals(json.manifests, []);
  docker.control.failWith = 503;
  assertEquals(await digests(), [signature.digest]);
});
