"""Fails when imported, after saying so where it must not be heard."""

print("this line must not reach stdout")
raise RuntimeError("broken on purpose\nover two lines")
