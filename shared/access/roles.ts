/** What a user's role allows. A key of a user has the scopes that it was given and that the role allows, whichever is less. */
import * as v from "valibot";
import { SCOPES, type Scope } from "./caller.ts";

export const Role = v.picklist(["owner", "admin", "developer", "billing", "viewer"]);
export type Role = v.InferOutput<typeof Role>;

/** An owner and an admin may do the same to everything but owners: only an owner makes, changes or removes one. */
const BY_ROLE: Readonly<Record<Role, readonly Scope[]>> = {
  owner: SCOPES,
  admin: SCOPES,
  developer: ["tasks:read", "tasks:write", "plugins:read", "plugins:admin", "secrets:admin", "webhooks:admin", "knowledge:read", "knowledge:write"],
  billing: ["plugins:read", "billing:read", "billing:admin"],
  viewer: ["tasks:read", "plugins:read", "knowledge:read"],
};

export function scopesOf(role: Role): readonly Scope[] {
  return BY_ROLE[role];
}

/** Scopes under one name, for whoever makes a key. A key keeps those that its preset had when it was made. */
export const Preset = v.picklist(["read_only", "submit", "billing", "admin"]);
export type Preset = v.InferOutput<typeof Preset>;

const BY_PRESET: Readonly<Record<Preset, readonly Scope[]>> = {
  read_only: ["tasks:read", "plugins:read", "knowledge:read"],
  submit: ["tasks:read", "tasks:write", "plugins:read"],
  billing: ["plugins:read", "billing:read", "billing:admin"],
  admin: SCOPES,
};

export function scopesOfPreset(preset: Preset): readonly Scope[] {
  return BY_PRESET[preset];
}

/** Whoever holds a key that acts as an owner is one; so only an owner gives, takes or renews what is an owner's. Null: a service account. */
export function mayActOn(own: Role | null, theirs: Role | null): boolean {
  return theirs !== "owner" || own === "owner";
}
