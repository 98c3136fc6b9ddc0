package codegen

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// An image is the initial memory of an ELF program, library or object file.
type image struct {
	machine  elf.Machine
	order    binary.ByteOrder
	pointer  int          // bytes of an address
	segments []segment    // by address
	symbols  []elf.Symbol // with addresses as values

	// words are the words that relocations write to memory. They may differ from
	// the bytes of the file.
	words map[uint64]word
}

// A segment is a range of memory, with its initial bytes from the file.
type segment struct {
	address uint64
	data    []byte
}

// A word is an address, or names a symbol of another file.
type word struct {
	address  uint64
	external string
}

// A relocation holds the types of the two relocations that produce addresses.
type relocation struct {
	absolute uint32 // symbol + addend
	relative uint32 // load address + addend
}

// relocations holds the relocation types of each machine, for 32-bit and 64-bit
// addresses.
var relocations = map[elf.Machine][2]relocation{
	elf.EM_386:       {{uint32(elf.R_386_32), uint32(elf.R_386_RELATIVE)}},
	elf.EM_X86_64:    {{}, {uint32(elf.R_X86_64_64), uint32(elf.R_X86_64_RELATIVE)}},
	elf.EM_ARM:       {{uint32(elf.R_ARM_ABS32), uint32(elf.R_ARM_RELATIVE)}},
	elf.EM_AARCH64:   {{}, {uint32(elf.R_AARCH64_ABS64), uint32(elf.R_AARCH64_RELATIVE)}},
	elf.EM_RISCV:     {{uint32(elf.R_RISCV_32), uint32(elf.R_RISCV_RELATIVE)}, {uint32(elf.R_RISCV_64), uint32(elf.R_RISCV_RELATIVE)}},
	elf.EM_LOONGARCH: {{}, {uint32(elf.R_LARCH_64), uint32(elf.R_LARCH_RELATIVE)}},
	elf.EM_MIPS:      {{uint32(elf.R_MIPS_32), uint32(elf.R_MIPS_REL32)}},
	elf.EM_PPC:       {{uint32(elf.R_PPC_ADDR32), uint32(elf.R_PPC_RELATIVE)}},
	elf.EM_PPC64:     {{}, {uint32(elf.R_PPC64_ADDR64), uint32(elf.R_PPC64_RELATIVE)}},
	elf.EM_XTENSA:    {{1, 5}}, // R_XTENSA_32, R_XTENSA_RELATIVE
	elf.EM_S390:      {{uint32(elf.R_390_32), uint32(elf.R_390_RELATIVE)}, {uint32(elf.R_390_64), uint32(elf.R_390_RELATIVE)}},
}

// newImage reads an ELF file.
func newImage(file []byte) (*image, error) {
	f, err := openELF(file)
	if err != nil {
		return nil, fmt.Errorf("not a readable ELF file: %w", err)
	}
	m := &image{machine: f.Machine, order: f.ByteOrder, pointer: 4, words: map[uint64]word{}}
	if f.Class == elf.ELFCLASS64 {
		m.pointer = 8
	}
	part := func(offset, size uint64) ([]byte, error) { return cut(file, offset, size) }
	// The sections of an object file have no addresses yet.
	base := make([]uint64, len(f.Sections))
	object := f.Type == elf.ET_REL
	if object {
		free := uint64(0x1000)
		for i, s := range f.Sections {
			if s.Flags&elf.SHF_ALLOC == 0 || s.Type == elf.SHT_NOBITS {
				continue
			}
			data, err := part(s.Offset, s.FileSize)
			if err != nil {
				return nil, err
			}
			base[i] = free
			m.segments = append(m.segments, segment{free, data})
			free += (uint64(len(data)) + 0x1fff) &^ 0xfff
		}
	} else {
		for _, p := range f.Progs {
			if p.Type != elf.PT_LOAD {
				continue
			}
			data, err := part(p.Off, p.Filesz)
			if err != nil {
				return nil, err
			}
			m.segments = append(m.segments, segment{p.Vaddr, data})
		}
		slices.SortFunc(m.segments, func(a, b segment) int { return cmp.Compare(a.address, b.address) })
	}
	static, err := readSymbols(f, file, elf.SHT_SYMTAB)
	if err != nil {
		return nil, fmt.Errorf("the symbols of the ELF file: %w", err)
	}
	dynamic, err := readSymbols(f, file, elf.SHT_DYNSYM)
	if err != nil {
		return nil, fmt.Errorf("the symbols of the ELF file: %w", err)
	}
	for _, list := range [][]elf.Symbol{static, dynamic} {
		for i, s := range list {
			if object && int(s.Section) < len(base) {
				list[i].Value += base[s.Section]
			}
		}
	}
	m.symbols = slices.Concat(static, dynamic)
	left := len(file)
	for _, s := range f.Sections {
		if s.Type != elf.SHT_REL && s.Type != elf.SHT_RELA || !object && s.Flags&elf.SHF_ALLOC == 0 {
			continue // the linker has applied the others
		}
		symbols, at := dynamic, uint64(0)
		if object {
			if uint64(s.Info) >= uint64(len(base)) || base[s.Info] == 0 {
				continue
			}
			symbols, at = static, base[s.Info]
		}
		data, err := part(s.Offset, s.FileSize)
		if err != nil {
			return nil, err
		}
		if left -= len(data); left < 0 {
			return nil, errors.New("the relocation sections of the ELF file overlap")
		}
		if err := m.relocate(data, s.Type == elf.SHT_RELA, at, symbols); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// relocate adds the words of a relocation section. Its offsets are relative to at.
func (m *image) relocate(data []byte, addends bool, at uint64, symbols []elf.Symbol) error {
	entry := 2 * m.pointer
	if addends {
		entry += m.pointer
	}
	types := relocations[m.machine][m.pointer/8]
	if types == (relocation{}) && len(data) >= entry {
		return fmt.Errorf("the relocations of %v are not supported", m.machine)
	}
	for ; len(data) >= entry; data = data[entry:] {
		place := at + m.number(data[:m.pointer])
		info := m.number(data[m.pointer : 2*m.pointer])
		kind, symbol := uint32(info&0xff), info>>8
		if m.pointer == 8 {
			kind, symbol = uint32(info), info>>32
		}
		if kind != types.absolute && kind != types.relative {
			continue // for code, or of another size
		}
		var w word
		if addends {
			w.address = m.number(data[2*m.pointer : entry])
		}
		if !addends || m.machine == elf.EM_XTENSA { // the addend is in place
			if b, err := m.bytes(place, m.pointer); err == nil {
				w.address += m.number(b)
			}
		}
		if symbol > 0 { // symbol 0 is empty and not in the list
			if symbol > uint64(len(symbols)) {
				return errors.New("a relocation names a symbol that the ELF file lacks")
			}
			s := &symbols[symbol-1]
			if s.Section == elf.SHN_UNDEF {
				w.external = s.Name
			}
			w.address += s.Value
		}
		if m.pointer == 4 {
			w.address = uint64(uint32(w.address))
		}
		m.words[place] = w
	}
	return nil
}

// number returns an unsigned integer of 1, 2, 4 or 8 bytes.
func (m *image) number(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(m.order.Uint16(b))
	case 4:
		return uint64(m.order.Uint32(b))
	}
	return m.order.Uint64(b)
}

// after returns the memory from an address to the end of its segment.
func (m *image) after(address uint64) ([]byte, error) {
	i, found := slices.BinarySearchFunc(m.segments, address, func(s segment, a uint64) int { return cmp.Compare(s.address, a) })
	if !found {
		i--
	}
	if i >= 0 && address-m.segments[i].address < uint64(len(m.segments[i].data)) {
		return m.segments[i].data[address-m.segments[i].address:], nil
	}
	return nil, fmt.Errorf("the ELF file has no data at address 0x%x", address)
}

// bytes returns n bytes of memory.
func (m *image) bytes(address uint64, n int) ([]byte, error) {
	data, err := m.after(address)
	if err == nil && len(data) < n {
		err = fmt.Errorf("the data at address 0x%x end after %d of %d bytes", address, len(data), n)
	}
	if err != nil {
		return nil, err
	}
	return data[:n], nil
}

// address returns the address that is stored in memory at place.
func (m *image) address(place uint64) (uint64, error) {
	if w, ok := m.words[place]; ok {
		if w.external != "" {
			return 0, fmt.Errorf("%s is in another file", w.external)
		}
		return w.address, nil
	}
	b, err := m.bytes(place, m.pointer)
	if err != nil {
		return 0, err
	}
	return m.number(b), nil
}

// text returns the string at an address.
func (m *image) text(address uint64) (string, error) {
	data, err := m.after(address)
	if err != nil {
		return "", err
	}
	end := bytes.IndexByte(data, 0)
	if end < 0 {
		return "", fmt.Errorf("the string at address 0x%x has no end", address)
	}
	return string(data[:end]), nil
}
