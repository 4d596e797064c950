int plumb_main();  // ../main.cpp, in the shared library
int main() { return plumb_main(); }
