"""How things are broken: each play is given a scene and breaks one thing in it."""
