"""What computes: the only place that asks for the device, the compiler or the instruction set.

Each function states the plain expression, which a GPU computes, and beside it the loop that computes the same on a CPU.
A library chooses the order of a sum by the processor, by the number of threads and by how many replicas share a call;
in these loops a number has the same bits whatever they are. They are compiled by numba, which neither reorders sums nor
contracts a product and a sum to one rounding, with one thread.

Two things about numba shape these loops. Its cache of a compiled loop does not see a change in another file, so a loop
calls none of another file, and the sum of a product, four terms at a time, stands in two. And where an array is
assigned to a part of another, numba also compiles the text of the error for unequal shapes, which takes seconds: such
copies are loops.

Shapes: R replicas (or any batch), n workers or rows, d parameters.
"""
