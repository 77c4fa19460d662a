package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// A mutant is one deliberate break of the code.
type mutant struct {
	name string // unique, begins with the rule
	file string // from the root of the repository
	in   string // the function, or Type.method, where old stands
	old  string // stands there exactly once
	new  string
	// breaks is the clause that no longer holds.
	breaks string
	// equivalent says why nothing observable changes; "" for all that tests must
	// notice.
	equivalent string

	// seeds are the histories that it takes when it takes more than others: some
	// things go wrong only when several do.
	seeds int

	number int // from 1, its place in the table
}

// inFile sets the file of mutants.
func inFile(file string, list []mutant) []mutant {
	for i := range list {
		list[i].file = file
	}
	return list
}

// A source is one file to be broken.
type source struct {
	name string
	text []byte
	set  *token.FileSet
	tree *ast.File
}

func parseSource(name string, text []byte) (*source, error) {
	s := &source{name: name, text: text, set: token.NewFileSet()}
	var err error
	s.tree, err = parser.ParseFile(s.set, name, text, parser.SkipObjectResolution)
	return s, err
}

func (s *source) offset(p token.Pos) int { return s.set.Position(p).Offset }

func (s *source) textOf(n ast.Node) string {
	return string(s.text[s.offset(n.Pos()):s.offset(n.End())])
}

// function finds the one function of a name, with or without its receiver's type
// in front.
func (s *source) function(name string) (*ast.FuncDecl, error) {
	var found []*ast.FuncDecl
	for _, d := range s.tree.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && isNamed(f, name) {
			found = append(found, f)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%s has %d functions %q, want one", s.name, len(found), name)
	}
	return found[0], nil
}

func isNamed(f *ast.FuncDecl, name string) bool {
	receiver, method, ok := strings.Cut(name, ".")
	if !ok {
		return f.Name.Name == name
	}
	if f.Recv == nil || f.Name.Name != method {
		return false
	}
	typ := f.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	ident, ok := typ.(*ast.Ident)
	return ok && ident.Name == receiver
}

// variant is the broken body of the mutant's function, from its brace on.
func (s *source) variant(m *mutant) (string, error) {
	f, err := s.function(m.in)
	if err != nil {
		return "", err
	}
	body := s.textOf(f.Body)
	if n := strings.Count(body, m.old); n != 1 {
		return "", fmt.Errorf("%q stands %d times in %s of %s, want once", m.old, n, m.in, s.name)
	}
	if m.old == m.new {
		return "", errors.New("it changes nothing")
	}
	broken := strings.Replace(body, m.old, m.new, 1)
	if _, err := parser.ParseFile(token.NewFileSet(), m.name, "package p\nfunc f()"+broken, parser.SkipObjectResolution); err != nil {
		return "", fmt.Errorf("what it makes is no Go: %w", err)
	}
	return broken, nil
}

// weave puts all mutants of a file into it: see [source.weaveFunction].
func (s *source) weave(list []*mutant) ([]byte, error) {
	var order []*ast.FuncDecl
	of := map[*ast.FuncDecl][]*mutant{}
	for _, m := range list {
		f, err := s.function(m.in)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		if of[f] == nil {
			order = append(order, f)
		}
		of[f] = append(of[f], m)
	}
	var out bytes.Buffer
	at := 0
	for _, d := range s.tree.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || of[f] == nil {
			continue
		}
		out.Write(s.text[at:s.offset(f.Name.Pos())])
		at = s.offset(f.End())
		// The original goes on under another name.
		out.WriteString(variantName(f, 0))
		out.Write(s.text[s.offset(f.Name.End()):at])
	}
	out.Write(s.text[at:])
	for _, f := range order {
		if err := s.weaveFunction(&out, f, of[f]); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

func variantName(f *ast.FuncDecl, number int) string {
	return fmt.Sprintf("%s__%d", f.Name.Name, number)
}

// weaveFunction writes a variant of a function for each of its mutants, and in
// the function's place one that calls the right one. A line directive gives each
// variant's errors and stack traces the name of its mutant.
func (s *source) weaveFunction(out *bytes.Buffer, f *ast.FuncDecl, list []*mutant) error {
	for _, m := range list {
		broken, err := s.variant(m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		head := string(s.text[s.offset(f.Pos()):s.offset(f.Name.Pos())])
		tail := string(s.text[s.offset(f.Name.End()):s.offset(f.Body.Pos())])
		fmt.Fprintf(out, "\n//line %s:1\n%s%s%s%s\n", m.name, head, variantName(f, m.number), tail, broken)
	}
	c := s.call(f)
	fmt.Fprintf(out, "\nfunc %s%s%s(%s) %s {\n\tswitch mutantNumber {\n", c.receiver, f.Name.Name, c.types, c.params, c.results)
	for _, m := range list {
		fmt.Fprintf(out, "\tcase %d:\n\t\t%s\n", m.number, c.to(variantName(f, m.number)))
	}
	fmt.Fprintf(out, "\tdefault:\n\t\t%s\n\t}\n}\n", c.to(variantName(f, 0)))
	return nil
}

// A call is how a function is called by one that has its place.
type call struct {
	receiver, on    string // "(r T) " and "r."
	types           string // parameters, which the arguments tell
	params, args    string
	results, before string
}

func (c *call) to(name string) string { return c.before + c.on + name + "(" + c.args + ")" }

func (s *source) call(f *ast.FuncDecl) call {
	var c call
	if f.Recv != nil {
		c.receiver, c.on = "(r0 "+s.textOf(f.Recv.List[0].Type)+") ", "r0."
	}
	if f.Type.TypeParams != nil {
		c.types = s.textOf(f.Type.TypeParams)
	}
	var params, args []string
	for _, field := range f.Type.Params.List {
		for range max(1, len(field.Names)) {
			name := fmt.Sprintf("a%d", len(params))
			params = append(params, name+" "+s.textOf(field.Type))
			if _, ok := field.Type.(*ast.Ellipsis); ok {
				name += "..."
			}
			args = append(args, name)
		}
	}
	c.params, c.args = strings.Join(params, ", "), strings.Join(args, ", ")
	if f.Type.Results != nil {
		c.results, c.before = s.textOf(f.Type.Results), "return "
	}
	return c
}
