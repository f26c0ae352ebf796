/**
 * The header that identifies a registry.
 *
 * @module
 */

/** The header of Docker's registry API on every answer. Older clients require it. */
export const API_VERSION = { "docker-distribution-api-version": "registry/2.0" } as const;
