"""The science of the room: arrays in, arrays out."""
