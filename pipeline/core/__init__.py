"""What everything stands on: components and their registry, errors, files, random streams, identity, linear algebra."""
