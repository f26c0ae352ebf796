/**
 * Pushing to a real registry: monolithic uploads, then the manifests, children first.
 *
 * @module
 */
import { basicHeader } from "./fake_token.ts";
import { blobsOf, type Content, type Manifest, manifestsOf, streamOf } from "./image.ts";

/** Whose account pushes. */
export interface PushAuth {
  readonly username: string;
  readonly password: string;
}

/** What is pushed where. */
export interface Push {
  readonly repository: string;
  /** Without one the manifest is pushed by digest. */
  readonly tag?: string;
  readonly image: Manifest;
  readonly auth?: PushAuth;
}

/** Pushes a manifest with its children and blobs to the registry at `url`; throws on any refusal. */
export async function pushImage(url: string, push: Push): Promise<void> {
  const { repository, image } = push;
  const authorization = await authorize(url, push);
  const base = `${url}/v2/${repository}`;
  for (const blob of blobsOf(image)) await pushBlob(base, blob, authorization);
  for (const m of manifestsOf(image)) {
    const reference = m === image ? push.tag ?? m.digest : m.digest;
    await ok(`${base}/manifests/${reference}`, {
      method: "PUT",
      headers: { ...authorization, "content-type": m.mediaType },
      body: m.manifest,
    });
  }
}

async function pushBlob(base: string, blob: Content, authorization: Record<string, string>) {
  const firstByte = await ok(`${base}/blobs/uploads/`, { method: "POST", headers: authorization });
  const location = new URL(firstByte.headers.get("location")!, base);
  location.searchParams.set("digest", blob.digest);
  await ok(location, {
    method: "PUT",
    headers: { ...authorization, "content-type": "application/octet-stream" },
    body: streamOf(blob),
  });
}

async function authorize(url: string, push: Push): Promise<Record<string, string>> {
  const ping = await fetch(`${url}/v2/`);
  await ping.body?.cancel();
  if (ping.status === 200) return {};
  const basic: Record<string, string> = push.auth
    ? { authorization: basicHeader(push.auth.username, push.auth.password) }
    : {};
  const challenge = ping.headers.get("www-authenticate") ?? "";
  if (/^basic/i.test(challenge)) return basic;
  const parameter = (name: string) => new RegExp(`${name}="([^"]*)"`).exec(challenge)?.[1] ?? "";
  const realm = new URL(parameter("realm"));
  realm.searchParams.set("service", parameter("service"));
  realm.searchParams.set("scope", `repository:${push.repository}:pull,push`);
  const answer = await fetch(realm, { headers: basic });
  if (!answer.ok) throw new Error(`No token from ${realm}: ${await answer.text()}`);
  return { authorization: `Bearer ${(await answer.json()).token}` };
}

async function ok(url: string | URL, init: RequestInit): Promise<Response> {
  const response = await fetch(url, init);
  const text = await response.text();
  if (!response.ok) throw new Error(`${init.method} ${url}: ${response.status} ${text}`);
  return response;
}
