"""What users of Fuseline test with: contract suites, simulation, a manual clock, private servers, a TCP proxy."""
