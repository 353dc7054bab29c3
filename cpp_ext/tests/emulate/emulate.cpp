// The emulator: blocks one after the other, their threads as fibers.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cuda_runtime.h"

namespace headway::cuda {
alignas(64) uint4 block_memory[emulate::most_memory / sizeof(uint4)];
}

namespace emulate {
namespace {

constexpr unsigned most_threads = 512;
constexpr std::size_t stack_size = 64 * 1024;
constexpr int garbage = 0xA5;

enum class State { ready, at_block, at_warp, done };

// Its context is for the beginning alone: jumps need no system calls.
struct Fiber {
    ucontext_t context;
    jmp_buf at;
    std::unique_ptr<char[]> stack = std::make_unique<char[]>(stack_size);
    bool begun = false;
    State state = State::done;
    bool turn = false;
};

struct alignas(16) Slot {
    char bytes[16];
};

std::vector<Fiber> fibers;  // kept from block to block
std::vector<Slot> slots;    // two for each thread
jmp_buf scheduler;
const std::function<void()>* running_kernel;
std::mt19937 random{7};

Fiber& running() { return fibers[threadIdx.x]; }

// Gives the turn back.
void wait(State state) {
    running().state = state;
    if (_setjmp(running().at) == 0) _longjmp(scheduler, 1);
}

void fiber_main() {
    for (;;) {
        (*running_kernel)();
        wait(State::done);
    }
}

void go_on() {
    if (_setjmp(scheduler) != 0) return;
    Fiber& fiber = running();
    if (fiber.begun) _longjmp(fiber.at, 1);
    fiber.begun = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = stack_size;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
    setcontext(&fiber.context);
}

std::vector<unsigned> in_order(unsigned count) {
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0u);
    if (emulate::order == Order::backward) std::reverse(order.begin(), order.end());
    if (emulate::order == Order::shuffled) std::shuffle(order.begin(), order.end(), random);
    return order;
}

// Lets the threads [first, after) go on if all of them wait at the same barrier.
bool release(unsigned first, unsigned after, State barrier) {
    for (unsigned t = first; t < after; ++t)
        if (fibers[t].state != barrier) return false;
    for (unsigned t = first; t < after; ++t) fibers[t].state = State::ready;
    return true;
}

void run_block() {
    const unsigned threads = blockDim.x;
    if (fibers.empty()) fibers = std::vector<Fiber>(most_threads);
    slots.resize(2 * threads);
    std::memset(headway::cuda::block_memory, garbage, most_memory);
    for (unsigned t = 0; t < threads; ++t) {
        fibers[t].state = State::ready;
        fibers[t].turn = false;
    }
    for (unsigned done = 0; done < threads;) {
        bool released = release(0, threads, State::at_block);
        for (unsigned w = 0; w < threads; w += warp)
            released |= release(w, w + warp, State::at_warp);
        bool ran = false;
        for (const unsigned t : in_order(threads)) {
            if (fibers[t].state != State::ready) continue;
            threadIdx = dim3(t, 0, 0);
            go_on();
            done += fibers[t].state == State::done;
            ran = true;
        }
        if (released || ran) continue;
        std::cerr << "threads wait for others that do not come\n";
        std::abort();
    }
}

}  // namespace

void run(const cudaLaunchConfig_t& config, const std::function<void()>& kernel) {
    if (config.dynamicSmemBytes > most_memory || config.blockDim.x > most_threads ||
        config.blockDim.x % warp != 0) {
        std::cerr << "a launch that the emulator does not know\n";
        std::abort();
    }
    gridDim = config.gridDim;
    blockDim = config.blockDim;
    running_kernel = &kernel;
    for (const unsigned place : in_order(gridDim.x * gridDim.y)) {
        blockIdx = dim3(place % gridDim.x, place / gridDim.x, 0);
        run_block();
    }
}

void wait_for_block() { wait(State::at_block); }

void wait_for_warp() { wait(State::at_warp); }

void* shown_by(unsigned lane, bool next) {
    return &slots[2 * (threadIdx.x / warp * warp + lane) + next];
}

bool& turn() { return running().turn; }

}  // namespace emulate

const char* cudaGetErrorString(cudaError_t) { return "emulated"; }

cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void** at, std::size_t bytes) {
    *at = std::malloc(bytes);
    if (*at) std::memset(*at, emulate::garbage, bytes);
    return *at ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void* at) {
    std::free(at);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
    if (bytes != 0) std::memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* at, int byte, std::size_t bytes, cudaStream_t) {
    if (bytes != 0) std::memset(at, byte, bytes);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
