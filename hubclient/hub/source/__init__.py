"""A repository as SOURCE: which files it consists of, what its headers tell, where it lies once it is here."""
