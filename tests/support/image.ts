/**
 * Images, indexes and artifacts made in memory, the same for the same seed, that real clients can unpack.
 *
 * @module
 */
import { gzipSync } from "node:zlib";
import { bytesOf, type Content, contentOf, digestOf, generated, randomBytes } from "./content.ts";
import { TAR_END, tarHeader, tarOf } from "./tar.ts";

export { bytesOf, type Content, contentOf, digestOf, generated, streamOf } from "./content.ts";

/** The media types of one dialect. */
export const MEDIA = {
  oci: {
    manifest: "application/vnd.oci.image.manifest.v1+json",
    index: "application/vnd.oci.image.index.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar+gzip",
    plainLayer: "application/vnd.oci.image.layer.v1.tar",
  },
  docker: {
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    plainLayer: "application/vnd.docker.image.rootfs.diff.tar",
  },
} as const;

/** Whose media types a manifest uses. */
export type Dialect = keyof typeof MEDIA;

/** What an image runs on. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

/** A layer with the digest of its uncompressed archive, which clients verify when they unpack it. */
export interface Layer extends Content {
  readonly diffId: string;
}

/** Anything that has a tag: its manifest, and what that refers to. */
export interface Manifest {
  /** The exact bytes. */
  readonly manifest: Uint8Array<ArrayBuffer>;
  readonly digest: string;
  readonly mediaType: string;
  readonly size: number;
  /** Config and layers of this manifest itself. */
  readonly blobs: readonly Content[];
  /** The manifests that an index lists. */
  readonly children: readonly Manifest[];
  readonly platform?: Platform;
  /** Digest of the manifest that this one is attached to. */
  readonly subject?: string;
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** An image for one platform. */
export interface Image extends Manifest {
  readonly config: Content;
  readonly layers: readonly Layer[];
}

/** The platform these tests run on. */
export const HERE: Platform = {
  os: "linux",
  architecture: Deno.build.arch === "aarch64" ? "arm64" : "amd64",
};

/** A gzip'd archive with one file of these bytes. */
export function makeLayer(bytes: Uint8Array, name = "file", dialect: Dialect = "oci"): Layer {
  const tar = tarOf([{ name, bytes }]);
  const layer = contentOf(new Uint8Array(gzipSync(tar, { level: 1 })), MEDIA[dialect].layer);
  return { ...layer, diffId: digestOf(tar) };
}

/**
 * An uncompressed archive of exactly `size` bytes (a multiple of 512, at least 2048) with one large file in it,
 * computed while it is read.
 */
export function makeLargeLayer(size: number, seed = 1, dialect: Dialect = "oci"): Layer {
  const inner = size - 512 - TAR_END;
  if (size % 512 || inner <= 0) throw new Error(`Not a size of a large layer: ${size}`);
  const content = generated({
    size: inner,
    seed,
    head: tarHeader(`large-${seed}`, inner),
    tail: new Uint8Array(TAR_END),
    mediaType: MEDIA[dialect].plainLayer,
  });
  return { ...content, diffId: content.digest };
}

/** Options for {@linkcode makeImage}. */
export interface ImageOptions {
  /**
   * A number is a gzip'd layer with a file of that many random bytes, bytes are such a file's content, a layer is used as it is.
   *
   * @default {[1000]}
   */
  readonly layers?: readonly (number | Uint8Array | Layer)[];
  /** @default {HERE} */
  readonly platform?: Platform;
  /** @default {1} */
  readonly seed?: number;
  /** @default {"oci"} */
  readonly mediaTypes?: Dialect;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** An image for one platform. */
export function makeImage(options: ImageOptions = {}): Image {
  const { platform = HERE, seed = 1, mediaTypes = "oci", annotations } = options;
  const media = MEDIA[mediaTypes];
  const layers = (options.layers ?? [1000]).map((layer, i): Layer => {
    if (typeof layer === "object" && "diffId" in layer) return layer;
    const bytes = typeof layer === "number" ? randomBytes(layer, seed * 1000 + i) : layer;
    return makeLayer(bytes, `file-${seed}-${i}`, mediaTypes);
  });
  const config = contentOf(
    encode({
      created: "2020-01-01T00:00:00Z",
      ...platform,
      config: { Cmd: ["/true"], Labels: { seed: String(seed) } },
      rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.diffId) },
      history: layers.map(() => ({ created: "2020-01-01T00:00:00Z", created_by: "test" })),
    }),
    media.config,
  );
  const manifest = encode({
    schemaVersion: 2,
    mediaType: media.manifest,
    config: descriptor(config),
    layers: layers.map(descriptor),
    ...annotations && { annotations },
  });
  return {
    ...manifestOf(manifest, media.manifest),
    blobs: [config, ...layers],
    config,
    layers,
    platform,
    annotations,
  };
}

/** An index of images (or of anything else that has a manifest), in the given order. */
export function makeIndex(
  images: readonly Manifest[],
  options: { mediaTypes?: Dialect; annotations?: Record<string, string> } = {},
): Manifest {
  const { mediaTypes = "oci", annotations } = options;
  const mediaType = MEDIA[mediaTypes].index;
  const manifest = encode({
    schemaVersion: 2,
    mediaType,
    manifests: images.map((image) => ({
      ...descriptor(image),
      ...image.platform && { platform: image.platform },
    })),
    ...annotations && { annotations },
  });
  return { ...manifestOf(manifest, mediaType), children: images, annotations };
}

/** An artifact (a signature, an SBOM) attached to a subject, or on its own. */
export function makeArtifact(
  subject: Manifest | undefined,
  options: { artifactType?: string; bytes?: Uint8Array<ArrayBuffer>; seed?: number } = {},
): Manifest {
  const { artifactType = "application/vnd.example.signature", seed = 1 } = options;
  const config = contentOf(new TextEncoder().encode("{}"), "application/vnd.oci.empty.v1+json");
  const layer = contentOf(options.bytes ?? randomBytes(300, seed), "application/vnd.example.data");
  const annotations = { "org.opencontainers.image.created": "2020-01-01T00:00:00Z" };
  const manifest = encode({
    schemaVersion: 2,
    mediaType: MEDIA.oci.manifest,
    artifactType,
    config: descriptor(config),
    layers: [descriptor(layer)],
    ...subject && { subject: descriptor(subject) },
    annotations,
  });
  return {
    ...manifestOf(manifest, MEDIA.oci.manifest),
    blobs: [config, layer],
    subject: subject?.digest,
    artifactType,
    annotations,
  };
}

/** The index that the referrers API answers with, and that the fallback tag holds. */
export function makeReferrers(artifacts: readonly Manifest[]): Manifest {
  const manifest = encode({
    schemaVersion: 2,
    mediaType: MEDIA.oci.index,
    manifests: artifacts.map((artifact) => ({
      ...descriptor(artifact),
      artifactType: artifact.artifactType,
      annotations: artifact.annotations,
    })),
  });
  return { ...manifestOf(manifest, MEDIA.oci.index), children: artifacts };
}

/** A manifest and, recursively, the manifests it lists; children first, as they must be pushed. */
export function manifestsOf(root: Manifest): Manifest[] {
  return [...root.children.flatMap(manifestsOf), root];
}

/** Every blob below a manifest, each once. */
export function blobsOf(root: Manifest): Content[] {
  const found = new Map<string, Content>();
  for (const manifest of manifestsOf(root)) {
    for (const blob of manifest.blobs) found.set(blob.digest, blob);
  }
  return [...found.values()];
}

/** Writes an OCI image layout with one tagged manifest, which `skopeo copy oci:DIR:TAG` reads. */
export async function writeLayout(dir: string, root: Manifest, tag = "latest"): Promise<void> {
  const blobs = `${dir}/blobs/sha256`;
  await Deno.mkdir(blobs, { recursive: true });
  const put = (digest: string, bytes: Uint8Array) =>
    Deno.writeFile(`${blobs}/${digest.slice("sha256:".length)}`, bytes);
  for (const manifest of manifestsOf(root)) await put(manifest.digest, manifest.manifest);
  for (const blob of blobsOf(root)) await put(blob.digest, bytesOf(blob));
  const annotations = { "org.opencontainers.image.ref.name": tag };
  const index = { schemaVersion: 2, manifests: [{ ...descriptor(root), annotations }] };
  await Deno.writeFile(`${dir}/index.json`, encode(index));
  await Deno.writeTextFile(`${dir}/oci-layout`, `{"imageLayoutVersion":"1.0.0"}`);
}

function descriptor(of: { mediaType: string; digest: string; size: number }) {
  return { mediaType: of.mediaType, digest: of.digest, size: of.size };
}

function encode(json: unknown): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(json));
}

function manifestOf(manifest: Uint8Array<ArrayBuffer>, mediaType: string) {
  return {
    manifest,
    mediaType,
    digest: digestOf(manifest),
    size: manifest.length,
    blobs: [] as Content[],
    children: [] as Manifest[],
  };
}
